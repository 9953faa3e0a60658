"""Functions over items in processes that can be killed.

A decoder that hangs, crashes or eats the memory takes its process with it and nothing else: the item fails
with a reason, the process is replaced and the others go on. Processes are started afresh (no fork of a threaded
parent) and import only what the function needs, about 0.2 s each.
"""

import atexit
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import psutil

from omnisource.cores import usable_cores
from omnisource.media.limits import Reason

T = TypeVar("T")
R = TypeVar("R")

_START_UP_S = 120.0  # for a process to import the function; generous, for a loaded machine
_WATCH_S = 0.1  # how often the memory of working processes is looked at
_QUEUED_PER_WORKER = 4  # items on their way: waiting, worked on, or finished and not yet fetched


@dataclass(frozen=True)
class Failure:
    """Why an item has no result."""

    reason: Reason
    message: str


class IsolatedPool:
    """Runs a function over items in `workers` killable processes.

    workers: number of processes; None takes one for each CPU this process may use. timeout_s: wall time for
    one item. memory_bytes: how much a process may grow over what it needed to start; None for no limit.

    Use it as a context manager, or call `close`. One `map` at a time; the processes are kept for the next.
    """

    def __init__(
        self, workers: int | None = None, timeout_s: float = 60.0, memory_bytes: int | None = 2 * 1024**3
    ) -> None:
        self.workers = workers or usable_cores()
        self.timeout_s = timeout_s
        self.memory_bytes = memory_bytes
        self._idle: list[_Worker] = []
        self._mapping = threading.Lock()
        self._crew: _Crew[Any, Any] | None = None  # of the map under way

    def map(
        self, function: Callable[[T], R], items: Iterable[T], *, ordered: bool = False, ahead: int | None = None
    ) -> Generator[tuple[T, R | Failure], None, None]:
        """Yields (item, result or Failure) for every item: as they end, or in the order of `items` when `ordered`.

        `function` must be importable from a module (no lambda, nothing from a script's own file); it, the items
        and the results are pickled. `items` is read lazily in the caller's thread, `ahead` of them (None: four for
        each process) before what has been yielded. A MediaError of the function becomes a Failure with its reason;
        any other exception one with reason "error".
        """
        if getattr(function, "__module__", None) == "__main__":
            raise TypeError(f"{function!r} is defined in the main script; the pool needs a function from a module")
        task = bytes(ForkingPickler.dumps(("function", function, self.memory_bytes)))
        if not self._mapping.acquire(blocking=False):
            raise RuntimeError("this pool is already running a map")
        crew = self._crew = _Crew[T, R](self, task)
        try:
            yield from crew.run(iter(items), ordered, ahead or self.workers * _QUEUED_PER_WORKER)
        finally:
            crew.stop()
            self._crew = None
            self._mapping.release()

    def close(self) -> None:
        """Ends all processes, those of a `map` that was left in its middle too."""
        if self._crew is not None:
            self._crew.stop()
        for worker in self._idle:
            worker.kill()
        self._idle.clear()

    def __enter__(self) -> "IsolatedPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_shared: dict[tuple[int | None, float, int | None], IsolatedPool] = {}


@contextmanager
def shared_pool(
    workers: int | None = None, timeout_s: float = 60.0, memory_bytes: int | None = 2 * 1024**3
) -> Iterator[IsolatedPool]:
    """A pool whose processes outlive the block, for the next one of the same settings.

    Where a function imports much (torch takes seconds) and many short maps follow one another, starting the processes
    again would cost more than the work. Only the pool used last is kept, until this process ends.
    """
    settings = (workers, timeout_s, memory_bytes)
    pool = _shared.pop(settings, None) or IsolatedPool(workers, timeout_s, memory_bytes)
    try:
        yield pool
    finally:
        for other in _shared.values():
            other.close()
        _shared.clear()
        _shared[settings] = pool


@atexit.register
def _close_shared() -> None:
    for pool in _shared.values():
        pool.close()


class _Worker:
    """One process and the connection to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "omnisource.media.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # Ctrl-C reaches the parent only
            )
        self.connection = Connection(ours.detach())
        self.usage = psutil.Process(self.process.pid)
        self.task = b""  # the function it was given
        self.job: _Job[Any] | None = None  # what it works on
        self.deadline = math.inf
        self.base_bytes = 0  # its memory before its first item

    def prepare(self, task: bytes) -> None:
        """Sends the function; the process answers when it has imported it."""
        self.task = task
        self.deadline = time.monotonic() + _START_UP_S
        self.connection.send_bytes(task)

    def give(self, job: "_Job[Any]", timeout_s: float) -> None:
        self.connection.send_bytes(job.payload)
        self.job = job
        self.deadline = time.monotonic() + timeout_s

    def memory_bytes(self) -> int:
        try:
            return int(self.usage.memory_info().rss)
        except psutil.Error:
            return 0

    def kill(self) -> str:
        """Ends the process; says how it ended."""
        self.connection.close()
        if self.process.poll() is None:
            self.process.kill()
        code = self.process.wait()
        return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it exited with {code}"


@dataclass
class _Job(Generic[T]):
    sequence: int
    item: T
    payload: bytes


class _Crew(Generic[T, R]):
    """One `map`: the caller's side, and a thread that keeps the processes busy meanwhile."""

    def __init__(self, pool: IsolatedPool, task: bytes) -> None:
        self.pool, self.task = pool, task
        self.waiting: deque[_Job[T]] = deque()
        self.finished: queue.SimpleQueue[tuple[_Job[T], R | Failure] | BaseException] = queue.SimpleQueue()
        self.workers: list[_Worker] = []
        self.ready: list[_Worker] = []  # those of `workers` that have nothing to do
        self.wake_in, self.wake_out = socket.socketpair()
        self.stopping = False
        self.thread = threading.Thread(target=self._pump, name="isolated-pool", daemon=True)
        self.thread.start()

    # In the caller's thread.

    def run(self, items: Iterator[T], ordered: bool, ahead: int) -> Iterator[tuple[T, R | Failure]]:
        given, early = 0, dict[int, tuple[T, R | Failure]]()
        exhausted = False
        for following in count():
            while not exhausted and given - following < ahead:
                try:
                    item = next(items)
                except StopIteration:
                    exhausted = True
                    break
                self._submit(_Job(given, item, bytes(ForkingPickler.dumps(("item", item, self.pool.timeout_s)))))
                given += 1
            if following == given:
                return
            while following not in early:
                finished = self.finished.get()
                if isinstance(finished, BaseException):
                    raise finished
                job, result = finished
                early[job.sequence if ordered else following] = (job.item, result)
            yield early.pop(following)

    def stop(self) -> None:
        """Ends the thread; processes still at work are killed, the others go back to the pool. Does nothing twice."""
        self.stopping = True
        self._wake()
        self.thread.join()
        self.finished.put(RuntimeError("the pool was closed"))  # whoever still asks for results
        self.wake_in.close()
        self.wake_out.close()

    def _submit(self, job: _Job[T]) -> None:
        self.waiting.append(job)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):
            self.wake_in.send(b"x", socket.MSG_DONTWAIT)

    # In the thread.

    def _pump(self) -> None:
        try:
            while not self.stopping:
                self._hand_out()
                self._wait()
                self._watch()
        except BaseException as error:
            self.finished.put(error)
        finally:
            for worker in self.workers:
                if worker in self.ready:
                    worker.deadline = math.inf
                    self.pool._idle.append(worker)
                else:
                    worker.kill()

    def _hand_out(self) -> None:
        """Gives waiting items to free processes, and starts processes while there are more items."""
        while self.waiting and self.ready:
            worker = self.ready.pop()
            job = self.waiting.popleft()
            try:
                worker.give(job, self.pool.timeout_s)
            except OSError:  # it died with nothing to do: not the fault of this item
                self._discard(worker)
                self.waiting.appendleft(job)
        starting = sum(worker.job is None for worker in self.workers) - len(self.ready)
        while len(self.workers) < self.pool.workers and starting < len(self.waiting):
            worker = self.pool._idle.pop() if self.pool._idle else _Worker()
            self.workers.append(worker)
            starting += 1
            try:
                worker.prepare(self.task)
            except OSError:
                self._discard(worker)

    def _wait(self) -> None:
        """Waits until a process answers, the caller wakes this thread, or a limit has to be looked at."""
        by_connection = {worker.connection: worker for worker in self.workers if worker not in self.ready}
        sources: list[Connection | socket.socket] = [*by_connection, self.wake_out]
        until = min((worker.deadline for worker in by_connection.values()), default=math.inf)
        pause = min(max(0.0, until - time.monotonic()), _WATCH_S if by_connection else math.inf)
        for source in wait(sources, None if pause == math.inf else pause):
            if source is self.wake_out:
                self.wake_out.recv(4096)
            else:
                self._receive(by_connection[cast(Connection, source)])

    def _receive(self, worker: _Worker) -> None:
        try:
            reason, value = worker.connection.recv()
        except (EOFError, OSError):
            ended = self._discard(worker)
            if worker.job is None:
                raise RuntimeError(f"a process of the pool did not start: {ended}") from None
            self._finish(worker.job, Failure(Reason.CRASHED, f"the process that worked on it died: {ended}"))
            return
        if worker.job is None:
            if reason == "unloadable":
                raise TypeError(f"the pool's processes can't load the function: {value}")
            worker.base_bytes = worker.base_bytes or worker.memory_bytes()
        else:
            self._finish(worker.job, value if reason is None else Failure(reason, value))
            worker.job = None
            limit = self.pool.memory_bytes
            leaked = limit is not None and worker.memory_bytes() - worker.base_bytes > limit // 2
            if reason is Reason.MEMORY or leaked:
                self._discard(worker)
                return
        worker.deadline = math.inf
        self.ready.append(worker)

    def _watch(self) -> None:
        """Kills processes that are over their time or memory."""
        now, limit = time.monotonic(), self.pool.memory_bytes
        for worker in [worker for worker in self.workers if worker not in self.ready]:
            failure = None
            if now > worker.deadline:
                failure = Failure(Reason.TIMEOUT, f"more than {self.pool.timeout_s:g} s of work")
            elif worker.job and limit is not None and worker.memory_bytes() - worker.base_bytes > limit:
                failure = Failure(Reason.MEMORY, f"more than {limit // 1024**2} MiB of memory")
            if failure is None or worker.connection.poll():
                continue  # an answer that is already here counts
            self._discard(worker)
            if worker.job is None:
                raise RuntimeError(f"a process of the pool did not start within {_START_UP_S:g} s")
            self._finish(worker.job, failure)

    def _finish(self, job: _Job[T], result: R | Failure) -> None:
        self.finished.put((job, result))

    def _discard(self, worker: _Worker) -> str:
        self.workers.remove(worker)
        return worker.kill()


def _environment() -> dict[str, str]:
    """The parent's environment and module path, and one thread per process unless the user says otherwise."""
    single = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    return single | os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)}
