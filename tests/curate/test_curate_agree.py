"""The second question reads each file once, and what can't be read agrees with nothing."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from omnisource.curate.agree import Agreement, Glance
from omnisource.media import DEFAULT_LIMITS, Failure, Reason


def test_each_file_is_read_once_and_a_broken_one_agrees_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"a": 1, "b": 2, "c": 1, "broken": None, "broken too": None}
    read: list[str] = []

    class Here:
        """A pool that works in this process."""

        def map(self, function: Any, items: list[str], ordered: bool) -> Any:
            return [(item, function(item)) for item in items]

    def look(name: str) -> Any:
        read.append(name)
        return Failure(Reason.CORRUPT, "broken") if shown[name] is None else np.array([shown[name]], np.uint8)

    monkeypatch.setattr("omnisource.curate.agree.shared_pool", lambda *_: nullcontext(Here()))
    glance = Glance(lambda sample, _: sample, look, lambda frames: frames * 2, lambda a, b: bool(a[0] == b[0]))
    names: Any = list(shown)
    question = Agreement(glance, lambda places: [names[place] for place in places], DEFAULT_LIMITS, None, None)
    question.read(np.array([0, 2]))
    question.read(np.array([0, 1, 2, 3, 4]))
    question.read(np.array([0, 3]))
    assert read == ["a", "c", "b", "broken", "broken too"]
    assert question.agree(0, 2) and not question.agree(0, 1)
    assert not question.agree(0, 3) and not question.agree(3, 0) and not question.agree(3, 4)
    question.forget(np.array([0]))
    question.read(np.array([0, 1]))
    assert read[5:] == ["a"]
