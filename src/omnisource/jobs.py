"""A function over a few long pieces of work, in processes of their own."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing.synchronize import Event as EventType
from typing import TypeVar

from omnisource.interrupts import end_with
from omnisource.progress import be_quiet

Work = TypeVar("Work")
Done = TypeVar("Done")

STOP = signal.SIGUSR1
"""What tells a job to end. Not SIGTERM, which whoever ends a whole group of processes has sent it already."""


def side_by_side(do: Callable[[Work], Done], work: Sequence[Work], jobs: int) -> Iterator[tuple[Work, Done]]:
    """What `do` makes of each of `work`, as it finishes: one after another here, or `jobs` at a time in processes.

    `do`, the work and what comes of it are pickled. An interrupted training ends its step and is saved, other work
    is dropped; on a second interrupt all of it is.
    """
    if jobs <= 1:
        for one in work:
            yield one, do(one)
        return
    # Spawned: a forked copy of a process that has threads may hang, and one that has used CUDA can't go on.
    context = multiprocessing.get_context("spawn")
    ended = context.Event()
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(ended,)) as pool:
        pending = {pool.submit(_do, do, one): one for one in work}
        try:
            for future in as_completed(pending):
                yield pending[future], future.result()
        except BaseException:
            processes = multiprocessing.active_children()
            ended.set()
            try:
                for process in processes:
                    with suppress(ProcessLookupError):
                        os.kill(process.pid or 0, STOP)
                pool.shutdown(wait=True, cancel_futures=True)
            except KeyboardInterrupt:  # a second one
                for process in processes:
                    process.kill()
                raise
            raise


def _do(do: Callable[[Work], Done], one: Work) -> Done:
    # The pool hands out one piece more than it has processes, which nobody can take back.
    if _ended is not None and _ended.is_set():
        raise KeyboardInterrupt
    return do(one)


_ended: EventType | None = None  # in a process of the pool: set once no more work is to begin


def _begin(ended: EventType) -> None:
    """Makes a process quiet, and mortal: when the run is killed, its trainings must not write on behind its back."""
    global _ended
    _ended = ended
    be_quiet()
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all; they are the parent's to handle
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with(parent.sentinel)
