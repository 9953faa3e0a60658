"""Work in processes of its own, and what ends it."""

import multiprocessing
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnisource import interrupts
from omnisource.jobs import STOP, side_by_side
from omnisource.tables import database
from omnisource.train.stop import stop_signals

ASKING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@pytest.fixture
def handlers() -> Iterator[None]:
    """The usual handlers, whatever whoever runs the tests ignores (nohup: SIGHUP); as before afterwards."""
    before = [signal.getsignal(number) for number in ASKING]
    for number, usual in zip(ASKING, (signal.SIG_DFL, signal.SIG_DFL, signal.default_int_handler), strict=True):
        signal.signal(number, usual)
    yield
    for number, handler in zip(ASKING, before, strict=True):
        signal.signal(number, handler)


def test_what_is_left_in_its_middle_is_told_to_end() -> None:
    before = set(multiprocessing.active_children())
    finished = side_by_side(time.sleep, [0, 600], 2)
    assert next(finished) == (0, None)
    finished.close()  # as an interrupt does
    assert not set(multiprocessing.active_children()) - before


def begin(note: Path | None) -> None:
    """Work that is done at once, or ends its step when it is told to, as a training does."""
    if note is not None:
        with stop_signals() as stop:
            note.touch()
            if stop.wait(60):
                raise KeyboardInterrupt


def test_what_waits_does_not_begin_once_others_are_told_to_end(tmp_path: Path) -> None:
    finished = side_by_side(begin, [None, *(tmp_path / str(number) for number in range(5))], 2)
    assert next(finished) == (None, None)
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.05)
    began = time.monotonic()
    finished.close()
    assert time.monotonic() - began < 40 and len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("handlers")
def test_a_training_ends_in_order_unless_one_signal_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnisource.train.stop.came", came := list[signal.Signals]())
    with stop_signals() as stop:
        for number in (STOP, signal.SIGTERM, signal.SIGHUP):  # whoever ends a group sends another than the parent
            signal.raise_signal(number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert came == [STOP, signal.SIGTERM, signal.SIGHUP, signal.SIGTERM]


@pytest.mark.usefixtures("handlers")
def test_signals_interrupt_unless_they_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "came", came := list[signal.Signals]())
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    interrupts.heed_signals()
    signal.raise_signal(signal.SIGHUP)  # nohup
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert came == [signal.SIGTERM]


def test_a_query_that_a_signal_ends_is_an_interrupt(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), database(tmp_path):
        raise RuntimeError("Query interrupted")
