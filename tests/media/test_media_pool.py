"""The isolated pool: what happens in a process stays in that process."""

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from omnisource.media import Failure, IsolatedPool, MediaError, Reason, shared_pool

MIB = 1024**2


def square(x: int) -> int:
    return x * x


def slow_first(x: int) -> int:
    time.sleep(0.5 if x == 0 else 0.0)
    return x


def misbehave(what: str) -> str:
    if what == "hang":
        while True:
            time.sleep(60)
    if what == "segfault":
        ctypes.string_at(0)
    if what == "exit":
        os._exit(3)
    if what == "media":
        raise MediaError(Reason.TRUNCATED, "half of it is gone")
    if what == "full":
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    if what == "raise":
        raise KeyError("a fault")
    if what == "at once":
        return str(len(bytearray(4096 * MIB)))
    if what == "bit by bit":
        kept = []
        while True:
            kept.append(bytearray(os.urandom(MIB)) * 4)
            time.sleep(0.001)
    return what.upper()


def process_id(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


_KEPT: list[bytes] = []


def leak(mebibytes: int) -> int:
    _KEPT.append(os.urandom(mebibytes * MIB))
    return os.getpid()


def imported_torch(_: int) -> bool:
    return "torch" in sys.modules


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_every_item_comes_back_once() -> None:
    with IsolatedPool(2) as pool:
        assert dict(pool.map(square, range(200))) == {x: x * x for x in range(200)}
        assert [result for _, result in pool.map(square, range(50), ordered=True)] == [x * x for x in range(50)]
        assert list(pool.map(square, [])) == []


def test_order_of_input_or_of_completion() -> None:
    with IsolatedPool(2) as pool:
        assert [item for item, _ in pool.map(slow_first, range(6), ordered=True)] == list(range(6))
        assert next(iter(pool.map(slow_first, range(6))))[0] != 0


def test_a_bad_item_fails_alone() -> None:
    items = ["a", "hang", "b", "segfault", "c", "exit", "d", "media", "full", "raise", "at once", "bit by bit", "e"]
    before = children()
    with IsolatedPool(2, timeout_s=8.0, memory_bytes=256 * MIB) as pool:
        started = time.monotonic()
        results = dict(pool.map(misbehave, items))
        assert time.monotonic() - started < 60
    reasons = {item: result.reason for item, result in results.items() if isinstance(result, Failure)}
    assert reasons == {
        "hang": Reason.TIMEOUT,
        "segfault": Reason.CRASHED,
        "exit": Reason.CRASHED,
        "media": Reason.TRUNCATED,
        "full": Reason.NO_SPACE,
        "raise": Reason.ERROR,
        "at once": Reason.MEMORY,
        "bit by bit": Reason.MEMORY,
    }
    assert {results[item] for item in "abcde"} == set("ABCDE")
    assert "exited with 3" in results["exit"].message
    assert "SIGSEGV" in results["segfault"].message
    assert results["media"].message == "half of it is gone"
    assert "KeyError" in results["raise"].message and "test_media_pool.py" in results["raise"].message
    assert children() <= before


def test_a_process_that_leaks_is_replaced_before_an_item_fails_of_it() -> None:
    with IsolatedPool(1, memory_bytes=128 * MIB) as pool:
        whole = [result for _, result in pool.map(leak, [1] * 8, ordered=True)]
        leaking = [result for _, result in pool.map(leak, [30] * 8, ordered=True)]
    assert len(set(whole)) == 1, "one that keeps little goes on"
    assert not any(isinstance(result, Failure) for result in leaking), "240 MiB in all, 128 allowed"
    assert 2 <= len(set(leaking)) <= 5


def test_processes_are_kept_between_maps_and_do_not_import_torch() -> None:
    with IsolatedPool(2) as pool:
        first = {result for _, result in pool.map(process_id, range(10))}
        again = {result for _, result in pool.map(process_id, range(10))}
        assert len(first | again) <= 2, "two processes at most, and none of them new"
        assert [result for _, result in pool.map(imported_torch, range(2))] == [False, False]


def test_items_are_read_a_few_ahead_only() -> None:
    read = 0

    def endless():  # type: ignore[no-untyped-def]
        nonlocal read
        while True:
            yield read
            read += 1

    with IsolatedPool(2) as pool:
        results = pool.map(square, endless(), ordered=True)
        for _ in range(5):
            next(results)
        time.sleep(0.3)
        assert read <= 5 + 2 * 4 + 1
        results.close()  # an abandoned map leaves a usable pool
        assert dict(pool.map(square, [3])) == {3: 9}


def test_what_cannot_be_sent_is_the_callers_error() -> None:
    with IsolatedPool(1) as pool:
        with pytest.raises((TypeError, AttributeError)):
            list(pool.map(lambda x: x, [1]))
        with pytest.raises(TypeError, match="pickle"):
            list(pool.map(square, [(x for x in range(3))]))
        assert dict(pool.map(square, [2])) == {2: 4}


def test_works_beside_torch_threads() -> None:
    torch = pytest.importorskip("torch")
    x = torch.rand(256, 256)
    with IsolatedPool(2) as pool:
        for item, result in pool.map(square, range(20)):
            assert torch.isfinite(x @ x).all() and result == item * item


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_media_pool import misbehave
from omnisource.media import IsolatedPool
with IsolatedPool(2, timeout_s={timeout}) as pool:
    print("started", flush=True)
    for item in pool.map(misbehave, ["hang"] * 4):
        pass
"""


def start_hanging(timeout_s: float) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A process whose pool hangs, and the pool's processes once they work."""
    script = SCRIPT.format(tests=str(Path(__file__).parent), timeout=timeout_s)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    until = time.monotonic() + 30
    while len(workers := psutil.Process(parent.pid).children()) < 2:
        assert time.monotonic() < until, "the pool did not start"
        time.sleep(0.05)
    time.sleep(1.5)
    return parent, workers


def test_ctrl_c_ends_everything_at_once() -> None:
    parent, workers = start_hanging(60)
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    assert not [worker for worker in workers if worker.is_running()]


def test_closing_a_pool_ends_what_a_map_left_in_its_middle_is_working_on() -> None:
    before = children()  # of other tests in this process
    with IsolatedPool(2) as pool:
        results = pool.map(slow_first, range(8))
        next(results)
        assert children() - before
    assert not children() - before
    with pytest.raises(RuntimeError, match="closed"):
        list(results)


def test_processes_do_not_outlive_a_killed_parent() -> None:
    parent, workers = start_hanging(60)
    parent.kill()
    parent.wait()
    psutil.wait_procs(workers, timeout=30)
    assert not [worker for worker in workers if worker.is_running()]


def test_a_shared_pool_keeps_its_processes_for_the_next() -> None:
    def processes(timeout_s: float) -> set[int]:
        with shared_pool(1, timeout_s) as pool:
            return {result for _, result in pool.map(process_id, range(3)) if isinstance(result, int)}

    first = processes(20.0)
    assert len(first) == 1
    assert processes(20.0) == first
    with shared_pool(1, 20.0) as outer:
        assert len(list(outer.map(process_id, [0]))) == 1
        assert processes(20.0) != first  # in use: another one
    assert processes(21.0).isdisjoint(first)
    assert not psutil.pid_exists(first.pop()), "a pool of other settings takes its place"
