"""How a process ends early: it is asked to by a signal, or whoever started it is gone."""

import os
import select
import signal
import threading
from types import FrameType

came: list[signal.Signals] = []
"""The signals that asked this process to end, as they came; Ctrl-C outside a training is not among them."""


def heed_signals() -> None:
    """From now on SIGTERM and SIGHUP interrupt as Ctrl-C does, wherever this process is, so that every `finally` runs.

    One that is ignored, as SIGHUP is under nohup, stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    came.append(signal.Signals(number))
    ctrl_c = signal.getsignal(signal.SIGINT)
    if callable(ctrl_c):  # asyncio has one of its own, which ends what is under way in order
        ctrl_c(signal.SIGINT, frame)
    else:  # ignored, as in what a shell runs in the background
        raise KeyboardInterrupt


def end_with(descriptor: int) -> None:
    """Ends this process, whatever it does, as soon as the other end of a pipe or socket is closed.

    A process that is killed can't end those that it started: they would write on behind the back of the next run.
    """
    threading.Thread(target=_end_with, args=(descriptor,), daemon=True).start()


def _end_with(descriptor: int) -> None:
    other = select.poll()
    other.register(descriptor, select.POLLHUP)
    while not any(event & (select.POLLHUP | select.POLLNVAL) for _, event in other.poll()):
        pass
    os._exit(1)
