"""A training that is asked to stop ends its step first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from omnisource.interrupts import came
from omnisource.jobs import STOP


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Signals set the event, so that a step ends before its training does; one that comes again stops at once.

    They are SIGTERM, SIGINT, SIGHUP and what a job is told to end by, but none that is ignored.
    """
    stop = threading.Event()
    asked = set[int]()

    def ask(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number))
        if number in asked:
            raise KeyboardInterrupt
        asked.add(number)
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, STOP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
