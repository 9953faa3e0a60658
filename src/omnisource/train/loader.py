"""From the plan to pixels: batches of uint8, decoded ahead of time by killable processes, or in this process.

A unit that cannot be read is quarantined, reported, and replaced by what the plan names next for its slot; both are
recorded in the run. What a batch holds does not depend on how many processes read it, or how fast.
"""

import json
import mmap
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from omnisource.errors import UserError
from omnisource.media import Failure, IsolatedPool, MediaError
from omnisource.tables import writing
from omnisource.train.decode import F32, U8, Kept, Place, Reading, Request, decode, decode_into
from omnisource.train.keys import I64
from omnisource.train.plan import Plan, Slots

_ATTEMPTS = 20  # at one slot; when they all fail something bigger is wrong
_AHEAD = 2  # finished batches that wait for the network


@dataclass(frozen=True)
class Replacement:
    """A unit that could not be read, and the one that took its slot."""

    step: int
    slot: int
    unit: int
    by: int
    reason: str


@dataclass(frozen=True)
class Group:
    """Slots of a batch whose pixels have one shape."""

    rows: I64  # positions in `Batch.slot`
    pixels: U8 | F32  # (n, T, H, W, 3); with a fixed trunk its features in place of them, float (n, D)
    camera: F32 | None  # (n, T', 3, 3) when the pixels are images under a moving camera


@dataclass(frozen=True)
class Batch:
    """What one rank needs of a global batch: its own slots, then the mixing partners that are not among them."""

    slots: Slots
    slot: I64
    own: int  # the first so many of `slot` are this rank's; the others are only mixed in
    unit: I64  # of each of `slot`, after replacements
    groups: list[Group]
    replaced: list[Replacement]  # of this rank's own slots: a partner's is told of where that is


class Quarantine:
    """Units that could not be read, and from which step on they count as unreadable; kept in a file of the run."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self._path = folder / (f"quarantine-{rank}.jsonl" if rank else "quarantine.jsonl")
        self._bad: dict[int, tuple[int, str]] = {}
        for path in sorted(folder.glob("quarantine*.jsonl")):
            for line in path.read_text(errors="replace").splitlines():
                with suppress(ValueError, KeyError, TypeError):  # the last line of a killed run may be cut off
                    row = json.loads(line)
                    self._note(int(row["unit"]), int(row["step"]), str(row["reason"]))

    def __len__(self) -> int:
        return len(self._bad)

    @property
    def units(self) -> list[int]:
        """Their numbers."""
        return list(self._bad)

    def reason(self, unit: int, step: int) -> str | None:
        """Why the unit is not to be read in this step, or None."""
        found = self._bad.get(unit)
        return found[1] if found and found[0] <= step else None

    def add(self, unit: int, step: int, failure: Failure, sample_id: str, uri: str) -> None:
        """Records that a unit could not be read in a step; survives a kill."""
        if not self._note(unit, step, str(failure.reason)):
            return
        row = {"unit": unit, "step": step, "reason": str(failure.reason), "sample_id": sample_id, "uri": uri}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with writing(self._path), self._path.open("a") as file:
            file.write(json.dumps(row | {"message": failure.message}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _note(self, unit: int, step: int, reason: str) -> bool:
        known = self._bad.get(unit)
        if known and known[0] <= step:
            return False
        self._bad[unit] = (step, reason)
        return True


def unit_of(plan: Plan, quarantine: Quarantine, slots: Slots, slot: int) -> tuple[int, str]:
    """The unit of a slot: the planned one, or, while that is quarantined, the plan's next; and why it was replaced.

    Raises UserError when many in a row are quarantined: then something bigger is wrong.
    """
    unit, reason = int(slots.unit[slot]), ""
    for attempt in range(1, _ATTEMPTS + 1):
        bad = quarantine.reason(unit, slots.step)
        if bad is None:
            return unit, reason
        unit, reason = plan.replacement(slots.step, slot, attempt), bad
    uri = plan.pool.unit(unit).uri
    raise UserError(f"{uri}: {_ATTEMPTS} units in a row can't be read ({bad}); are the media where they were?")


class Loader:
    """Reads the batches of a plan for one rank. A context manager; it ends its processes when closed.

    Args:
        workers: processes that decode; 0 reads in this process (small media, debugging).
        timeout_s: wall time for one unit, after which its process is killed (only with workers).
        memory_bytes: how much a process may grow (only with workers).
        cache_bytes: decoded frames of small files to keep in memory (only without workers).
    """

    def __init__(
        self,
        plan: Plan,
        reading: Reading,
        quarantine: Quarantine,
        *,
        workers: int,
        timeout_s: float = 60.0,
        memory_bytes: int = 2 * 1024**3,
        cache_bytes: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._plan, self._reading, self._quarantine = plan, reading, quarantine
        self._rank, self._world = rank, world
        self._kept = Kept(cache_bytes)
        self._pool = IsolatedPool(workers, timeout_s, memory_bytes) if workers else None
        self._free: list[_Block] = []
        self._blocks: list[_Block] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops reading ahead and ends the processes."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._pool is not None:
            self._pool.close()
        for block in self._blocks:
            block.close()
        self._blocks.clear()

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of the steps from `start` up to `stop`."""
        if self._pool is None:
            for step in range(start, stop):
                yield self._read_here(step)
            return
        ready: queue.Queue[Batch | BaseException] = queue.Queue(_AHEAD)
        self._thread = threading.Thread(
            target=self._read_ahead, args=(self._pool, start, stop, ready), name="loader", daemon=True
        )
        self._thread.start()
        for _ in range(start, stop):
            found = ready.get()
            if isinstance(found, BaseException):
                raise found
            yield found

    # Reading in this process.

    def _read_here(self, step: int) -> Batch:
        work = self._open(step)
        for row, request in enumerate(work.requests):
            while True:
                try:
                    work.put(row, *decode(request, self._kept))
                    break
                except MediaError as error:
                    request = self._replace(work, row, Failure(error.reason, error.message))
        return work.batch()

    # Reading ahead, in processes.

    def _read_ahead(
        self, pool: IsolatedPool, start: int, stop: int, ready: "queue.Queue[Batch | BaseException]"
    ) -> None:
        try:
            for batch in self._assemble(pool, start, stop):
                while not self._stop.is_set():
                    with suppress(queue.Full):
                        ready.put(batch, timeout=0.1)
                        break
                if self._stop.is_set():
                    return
        except BaseException as error:
            ready.put(error)

    def _assemble(self, pool: IsolatedPool, start: int, stop: int) -> Iterator[Batch]:
        """Keeps the processes busy with the slots of this and later steps, and yields the steps in order."""
        open_steps: dict[int, _Assembly] = {}
        again: deque[_Asked] = deque()

        def ask() -> Iterator[_Asked]:
            for step in range(start, stop):
                work = open_steps[step] = self._open(step)
                for row, request in enumerate(work.requests):
                    while again:
                        yield again.popleft()
                    yield _Asked(request, step, row)

        due = start
        asking = ask()
        while due < stop:
            # A map ends when nothing is left to ask; what failed after that is asked for in another one.
            source = iter([again.popleft() for _ in range(len(again))]) if again else asking
            for asked, result in pool.map(_read, source, ordered=True):
                work = open_steps[asked.step]
                if isinstance(result, Failure):
                    again.append(_Asked(self._replace(work, asked.row, result), asked.step, asked.row))
                else:
                    work.put(asked.row, *result)
                while due in open_steps and open_steps[due].complete:
                    finished = open_steps.pop(due)
                    batch = finished.batch()
                    if finished.block is not None:
                        self._free.append(finished.block)
                    yield batch
                    due += 1

    # Both.

    def _open(self, step: int) -> "_Assembly":
        work = _Assembly(self._plan.step(step), self._rank, self._world)
        for row in range(len(work.slot)):
            work.requests.append(self._request(work, row))
        if self._pool is not None and hasattr(os, "memfd_create"):
            room = max(int(np.prod(request.shape)) for request in work.requests)
            work.block, work.room = self._take_block(room * len(work.slot)), room
            work.requests = [work.placed(row, request) for row, request in enumerate(work.requests)]
        return work

    def _take_block(self, size: int) -> "_Block":
        """Memory that no open step uses: some that is free again, or new."""
        for block in self._free:
            if block.size >= size:
                self._free.remove(block)
                return block
        self._blocks.append(_Block(size))
        return self._blocks[-1]

    def _request(self, work: "_Assembly", row: int) -> Request:
        """The request for a row: its unit, or, while that is quarantined, the next one."""
        slot = int(work.slot[row])
        planned = int(work.slots.unit[slot])
        unit, reason = unit_of(self._plan, self._quarantine, work.slots, slot)
        work.unit[row] = unit
        if unit != planned:
            work.replaced[row] = Replacement(work.slots.step, slot, planned, unit, reason)
        return self._reading.request(self._plan.pool.unit(unit), int(work.slots.key[slot]))

    def _replace(self, work: "_Assembly", row: int, failure: Failure) -> Request:
        """Puts the unit of a row into quarantine; the request for its replacement."""
        number = int(work.unit[row])
        unit = self._plan.pool.unit(number)
        self._quarantine.add(number, work.slots.step, failure, unit.sample_id, unit.uri)
        return work.placed(row, self._request(work, row))


@dataclass(frozen=True)
class _Asked:
    request: Request
    step: int
    row: int


def _read(asked: _Asked) -> tuple[U8 | None, F32 | None]:
    return decode_into(asked.request)


class _Assembly:
    """A batch that is being put together."""

    def __init__(self, slots: Slots, rank: int, world: int) -> None:
        self.slots = slots
        mine = np.arange(rank, len(slots), world, dtype=np.int64)
        others = np.setdiff1d(slots.partner[mine], mine)
        self.slot, self.own = np.concatenate([mine, others]), len(mine)
        self.unit = slots.unit[self.slot]
        self.requests: list[Request] = []
        self.replaced: dict[int, Replacement] = {}
        self.block: _Block | None = None
        self.room = 0  # bytes of a row in the block
        self._pixels: dict[int, U8] = {}
        self._cameras: dict[int, F32] = {}

    @property
    def complete(self) -> bool:
        return len(self._pixels) == len(self.slot)

    def placed(self, row: int, request: Request) -> Request:
        """The request with the place where its pixels go; without one they travel through the pipe."""
        self.requests[row] = request
        if self.block is None or np.prod(request.shape) > self.room:
            return request
        place = Place(self.block.path, self.block.token, self.block.size, row * self.room)
        self.requests[row] = replace(request, into=place)
        return self.requests[row]

    def put(self, row: int, pixels: U8 | None, camera: F32 | None) -> None:
        """Takes the result for a row: pixels, or None when they lie in the block."""
        if pixels is None:
            assert self.block is not None
            shape = self.requests[row].shape
            pixels = self.block.view[row * self.room :][: int(np.prod(shape))].reshape(shape)
        self._pixels[row] = pixels
        if camera is not None:
            self._cameras[row] = camera

    def batch(self) -> Batch:
        """The finished batch; its pixels are copies."""
        rows_of: dict[tuple[tuple[int, ...], bool], list[int]] = {}
        for row in range(len(self.slot)):
            rows_of.setdefault((self._pixels[row].shape, row in self._cameras), []).append(row)
        groups = [
            Group(
                rows=np.array(rows, np.int64),
                pixels=np.stack([self._pixels[row] for row in rows]),
                camera=np.stack([self._cameras[row] for row in rows]) if moving else None,
            )
            for (_, moving), rows in rows_of.items()
        ]
        replaced = [self.replaced[row] for row in sorted(self.replaced) if row < self.own]
        return Batch(self.slots, self.slot, self.own, self.unit, groups, replaced)


class _Block:
    """Memory that the decoding processes write to. It has no name, so nothing is left behind however the run ends."""

    _count = 0

    def __init__(self, size: int) -> None:
        self.size = size
        self._descriptor = os.memfd_create("omnisource")
        os.truncate(self._descriptor, size)
        self._map = mmap.mmap(self._descriptor, size)
        self.view = np.frombuffer(self._map, np.uint8)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        _Block._count += 1
        self.token = _Block._count

    def close(self) -> None:
        """Gives the memory back once nobody looks at it."""
        os.close(self._descriptor)
