"""A training that is killed and started again ends as one that never was: the same bits in weights and log."""

import signal
from pathlib import Path

import pytest
import torch
from train_run import end_of, run
from train_small import Small

from omnisource.errors import UserError
from omnisource.networks import load_checkpoint
from omnisource.train.record import load_state, save_state

STEPS_PER_EPOCH, EPOCHS = 4, 5
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


def lines(folder: Path) -> int:
    return (folder / "log.jsonl").read_bytes().count(b"\n")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "last.safetensors")[0].state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(small: Small) -> None:
    root, folder = small.workspace.root.parent, small.workspace.run_dir("killed")
    straight = small.workspace.run_dir("straight")
    run(root, straight, {**SETTINGS, "workers": 0})
    state, previous = folder / "state.pt", folder / "state.previous.pt"
    # Before the first checkpoint; in mid-epoch; at an epoch's edge, before its checkpoint.
    for workers, line in ((0, 2), (1, STEPS_PER_EPOCH + 2), (4, 2 * STEPS_PER_EPOCH)):
        assert end_of(root, folder, {**SETTINGS, "workers": workers}, "line", line) == -signal.SIGKILL
        assert lines(folder) == line and state.exists() == (line > STEPS_PER_EPOCH)
    # While a checkpoint is written: half of the new one is there, and the whole last one.
    assert end_of(root, folder, {**SETTINGS, "workers": 0}, "saving", 2) == -signal.SIGKILL
    assert torch.load(state, weights_only=True)["step"] == 2 * STEPS_PER_EPOCH
    # Between two renames: the only whole one is the one before, and the new one that has no name yet.
    assert end_of(root, folder, {**SETTINGS, "workers": 0}, "renaming", 1) == -signal.SIGKILL
    assert not state.exists() and torch.load(previous, weights_only=True)["step"] == 2 * STEPS_PER_EPOCH
    # Asked to stop when a step is done, it writes a checkpoint after the next one.
    assert end_of(root, folder, {**SETTINGS, "workers": 0}, "line", 3 * STEPS_PER_EPOCH + 2, signal.SIGTERM) == 130
    assert torch.load(state, weights_only=True)["step"] == lines(folder) == 3 * STEPS_PER_EPOCH + 3
    # A power failure cut the state off: the one before it takes its place.
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    run(root, folder, {**SETTINGS, "workers": 2})
    assert (folder / "log.jsonl").read_bytes() == (straight / "log.jsonl").read_bytes()
    assert same(weights(folder), weights(straight))


def test_a_damaged_state_is_found_out(tmp_path: Path) -> None:
    """By its checksums: torch itself would read what one flipped bit made of a weight."""
    for step in (1, 2):
        save_state(tmp_path, {"step": step, "weights": torch.full((64,), 0.5)})
    for name, left in (("state.pt", 1), ("state.previous.pt", None)):
        content = bytearray((tmp_path / name).read_bytes())
        content[content.index(torch.full((64,), 0.5).numpy().tobytes())] ^= 1
        (tmp_path / name).write_bytes(content)
        if left is not None:
            found = load_state(tmp_path)
            assert found is not None and found["step"] == left
    with pytest.raises(UserError, match=r"state\.pt: not readable .* delete it to train from the start"):
        load_state(tmp_path)
    for name in ("state.pt", "state.previous.pt"):
        (tmp_path / name).unlink()
    assert load_state(tmp_path) is None


@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_nothing(small: Small, workers: int) -> None:
    root = small.workspace.root.parent
    folders = [small.workspace.run_dir(f"with-{count}") for count in (0, workers)]
    for folder, count in zip(folders, (0, workers), strict=True):
        run(root, folder, {**SETTINGS, "epochs": 2, "workers": count})
    for name in ("log.jsonl", "last.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_frames_kept_in_memory_change_nothing(small: Small) -> None:
    root = small.workspace.root.parent
    folders = [small.workspace.run_dir(f"kept-{size}") for size in (0, 100_000, 2**30)]
    for folder, size in zip(folders, (0, 100_000, 2**30), strict=True):
        run(root, folder, {**SETTINGS, "epochs": 3, "workers": 0, "cache_bytes": size})
    assert len({(folder / "log.jsonl").read_bytes() for folder in folders}) == 1
