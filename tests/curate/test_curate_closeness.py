"""Which test sample a web sample resembles most: against a plain search over all pairs of frames."""

from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.curate import closeness
from omnisource.curate.closeness import _nearest
from omnisource.curate.embed import FEATURES
from omnisource.curate.whiten import Whitening
from omnisource.tables import Journal

PLAIN = Whitening(np.zeros(4, np.float32), np.eye(4, dtype=np.float32))


def drawn(rng: np.random.Generator, sizes: list[int], letter: str) -> tuple[list[str], np.ndarray]:
    names = [f"{letter}{number}" for number, size in enumerate(sizes) for _ in range(size)]
    return names, rng.normal(size=(len(names), 4)).astype(np.float16)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=8),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.integers(0, 1000),
)
def test_the_second_best_frame_of_a_video_counts(web: list[int], test: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples, features = drawn(rng, web, "w")
    owners, frames = drawn(rng, test, "t")
    index = faiss.IndexFlatIP(4)
    index.add(PLAIN(frames))
    found = _nearest(samples, features, owners, PLAIN, index)
    similarity = PLAIN(features) @ PLAIN(frames).T  # at most 30 frames, so every frame is among the neighbours
    for number in range(len(web)):
        mine = [row for row, name in enumerate(samples) if name == f"w{number}"]
        best = {
            twin: sorted((max(similarity[row, np.array(owners) == twin]) for row in mine), reverse=True)
            for twin in set(owners)
        }
        wanted = max(values[min(len(values), 2) - 1] for values in best.values())
        name, value = found[f"w{number}"][0]
        assert np.isclose(value, wanted, atol=1e-5)
        assert np.isclose(best[name][min(len(mine), 2) - 1], wanted, atol=1e-5)


def test_one_frame_that_looks_alike_by_chance_does_not_drop_a_video_but_drops_a_picture() -> None:
    index = faiss.IndexFlatIP(4)
    index.add(np.eye(4, dtype=np.float32))
    frame, other = np.array([1, 0, 0, 0], np.float16), np.array([-1, -1, -1, -1], np.float16)
    found = _nearest(
        ["film", "film", "film", "picture"], np.stack([frame, other, other, frame]), ["a", "a", "b", "c"], PLAIN, index
    )
    assert found["picture"][0] == ("a", 1.0)
    assert found["film"][0][1] < 0


def test_the_drawn_frames_do_not_depend_on_the_order_of_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closeness, "_FIT_ROWS", 40)
    web = pa.chunked_array([pa.array([f"{7 * n % 50:02d}" for n in range(50)])])
    ids = web.to_pylist()
    drawn = []
    for name, order in (("as listed", ids), ("as they came", [*ids[30:], *ids[:30]])):
        journal = Journal(tmp_path / name, FEATURES, ["sample_id"], "f1")
        for some in (order[:17], order[17:]):
            journal.append(
                {"sample_id": i, "feature": np.array([int(i), k], np.float16)} for i in some for k in range(3)
            )
        drawn.append(closeness._drawn(tmp_path / name, web, 0, 2))
    assert 20 < len(drawn[0]) < 60 and np.array_equal(*drawn)
