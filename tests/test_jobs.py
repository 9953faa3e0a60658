"""Work in processes of its own, and what ends it."""

import multiprocessing
import signal
import time
from pathlib import Path

import pytest

from omnisource import interrupts
from omnisource.jobs import STOP, side_by_side
from omnisource.tables import database
from omnisource.train.stop import stop_signals


def test_what_is_left_in_its_middle_is_told_to_end() -> None:
    before = set(multiprocessing.active_children())
    finished = side_by_side(time.sleep, [0, 600], 2)
    assert next(finished) == (0, None)
    finished.close()  # as an interrupt does
    assert not set(multiprocessing.active_children()) - before


def test_a_training_ends_in_order_unless_one_signal_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnisource.train.stop.came", came := list[signal.Signals]())
    with stop_signals() as stop:
        for number in (STOP, signal.SIGTERM, signal.SIGHUP):  # whoever ends a group sends another than the parent
            signal.raise_signal(number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert came == [STOP, signal.SIGTERM, signal.SIGHUP, signal.SIGTERM]


def test_signals_interrupt_unless_they_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "came", came := list[signal.Signals]())
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    try:
        for number, handler in zip(numbers, (signal.SIG_DFL, signal.SIG_IGN, signal.SIG_IGN), strict=True):
            signal.signal(number, handler)
        interrupts.heed_signals()
        signal.raise_signal(signal.SIGHUP)  # nohup
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert came == [signal.SIGTERM]


def test_a_query_that_a_signal_ends_is_an_interrupt(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), database(tmp_path):
        raise RuntimeError("Query interrupted")
