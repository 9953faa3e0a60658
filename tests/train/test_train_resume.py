"""A training that is killed and started again ends as one that never was: the same bits in weights and log."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from train_run import run
from train_small import Small

from omnisource.networks import load_checkpoint

SCRIPT = Path(__file__).with_name("train_run.py")
STEPS_PER_EPOCH, EPOCHS = 4, 14
# Everything that keeps a state of its own, or draws at random.
SETTINGS = {
    "epochs": EPOCHS,
    "network": {"name": "slowonly_r18", "dropout": 0.3, "options": {"base_width": 8}},
    "mixup": {"kind": "cross", "alpha": 0.4},
    "resample": {"images": {"power": 0.5}},
    "ema": 0.9,
    "optimiser": {"kind": "adamw", "lr": 0.001, "warmup_epochs": 2},
    "checkpoint_every": 1,
    "checkpoint_seconds": 0,
}


def start(root: Path, folder: Path, workers: int) -> "subprocess.Popen[bytes]":
    changes = [f"{key}={json.dumps(value)}" for key, value in SETTINGS.items()]
    paths = [entry for entry in (*sys.path, str(SCRIPT.parent)) if entry]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(root), str(folder), str(workers), *changes],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode} before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0)  # some moments are short


def lines(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "last.safetensors")[0].state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(small: Small) -> None:
    root, folder = small.workspace.root.parent, small.workspace.run_dir("killed")
    straight = small.workspace.run_dir("straight")
    run(root, straight, {**SETTINGS, "workers": 0})
    state, partial = folder / "state.pt", folder / ".state.pt.tmp"

    def later_than(step: int, when: Callable[[int], bool]) -> Callable[[], bool]:
        return lambda: state.exists() and (now := lines(folder)) > step and when(now)

    moments: list[tuple[str, int, Callable[[], bool]]] = [
        ("before the first checkpoint", 0, lambda: 1 <= lines(folder) <= 2 and not state.exists()),
        ("in mid-epoch", 1, lambda: state.exists() and lines(folder) % STEPS_PER_EPOCH == 2),
        ("at an epoch's edge", 4, later_than(8, lambda now: now % STEPS_PER_EPOCH == 0)),
        ("while a checkpoint is written", 0, partial.exists),
    ]
    for name, workers, moment in moments:
        process = start(root, folder, workers)
        wait_for(moment, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL, name
    # Asked to stop, it writes a checkpoint of the step it is at.
    process = start(root, folder, 0)
    wait_for(later_than(lines(folder), lambda now: now % STEPS_PER_EPOCH == 2), process)
    process.terminate()
    assert process.wait() == 130
    assert torch.load(state, weights_only=True)["step"] == lines(folder) < EPOCHS * STEPS_PER_EPOCH
    # A power failure cut the state off: the one before it takes its place.
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    run(root, folder, {**SETTINGS, "workers": 2})
    assert (folder / "log.jsonl").read_bytes() == (straight / "log.jsonl").read_bytes()
    assert same(weights(folder), weights(straight))


@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_nothing(small: Small, workers: int) -> None:
    root = small.workspace.root.parent
    folders = [small.workspace.run_dir(f"with-{count}") for count in (0, workers)]
    for folder, count in zip(folders, (0, workers), strict=True):
        run(root, folder, {**SETTINGS, "epochs": 2, "workers": count})
    assert (folders[0] / "log.jsonl").read_bytes() == (folders[1] / "log.jsonl").read_bytes()
    assert same(weights(folders[0]), weights(folders[1]))


def test_frames_kept_in_memory_change_nothing(small: Small) -> None:
    root = small.workspace.root.parent
    folders = [small.workspace.run_dir(f"kept-{size}") for size in (0, 100_000, 2**30)]
    for folder, size in zip(folders, (0, 100_000, 2**30), strict=True):
        run(root, folder, {**SETTINGS, "epochs": 3, "workers": 0, "cache_bytes": size})
    assert len({(folder / "log.jsonl").read_bytes() for folder in folders}) == 1
