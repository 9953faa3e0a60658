"""Two processes under torchrun train as one does: the same samples, and with fixed norms the same losses."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from train_run import train_by_two
from train_small import Small

from omnisource.errors import UserError
from omnisource.networks import create, load_checkpoint
from omnisource.train import build_pool, distributed
from omnisource.train.decode import Reading
from omnisource.train.distributed import Ranks, joined
from omnisource.train.validate import validate

SCRIPT = Path(__file__).with_name("train_run.py")
SETTINGS = {
    "network": {"name": "slowonly_r18", "dropout": 0.0, "norm": "frozen", "options": {"base_width": 8}},
    "mixup": {"kind": "cross"},
    "checkpoint_every": 0.5,
}
# One image a step: of two processes only one has it, and both must do as many passes.
LOPSIDED = {"target": 4, "sizes": {"images": 1}}
CONSISTENT = {"mixup": {"kind": "off"}, "consistency": {"confidence": 0.34}}


def torchrun(root: Path, folder: Path, world: int, **changes: object) -> None:
    arguments = [f"{key}={json.dumps(value)}" for key, value in (SETTINGS | changes).items()]
    paths = [entry for entry in (*sys.path, str(SCRIPT.parent)) if entry]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    command = [sys.executable, *launch, str(SCRIPT), str(root), str(folder), "0", *arguments]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


class Apart(Ranks):
    """One process's share, by itself."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values


def test_more_processes_than_samples_validate_all_of_them_once(small: Small) -> None:
    (small.workspace.root.parent / "media" / "clips-017.mp4").write_bytes(b"broken")
    training = small.recipe.student
    pool = build_pool(small.recipe, small.workspace, ["clips"], False, "val")
    reading = Reading(training, False, None, pool.frames, pool.classes)
    network = create("slowonly_r18", 3, base_width=8)
    whole, *shares = (
        validate(network, pool, reading, Apart(rank, world, torch.device("cpu")), 0)
        for rank, world in [(0, 1), *((rank, 6) for rank in range(6))]
    )
    assert (whole["samples"], whole["unread"]) == (3, 1)
    assert [(share["samples"], share["unread"]) for share in shares] == [(1, 0), (0, 1), (1, 0), (1, 0), (0, 0), (0, 0)]
    assert sum(share["loss"] for share in shares) / 3 == pytest.approx(whole["loss"], rel=1e-4)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_validate_the_network_that_is_saved(small: Small, parallel: str) -> None:
    # Each has running statistics of its own share; the first one's are saved.
    folder = small.workspace.run_dir("world-2")
    folder.mkdir(parents=True)
    changes = {"epochs": 0.25, "validate_every": 0.25, "parallel": parallel}
    train_by_two(small.workspace.root.parent, folder, changes)
    (found,) = (row for row in log_of(folder) if row["kind"] == "validation")
    pool = build_pool(small.recipe, small.workspace, ["clips"], False, "val")
    reading = Reading(small.recipe.student, False, None, pool.frames, pool.classes)
    network, _ = load_checkpoint(folder / "last.safetensors")
    alone = validate(network, pool, reading, Ranks(0, 1, torch.device("cpu")), 0)
    assert found["loss"] == pytest.approx(alone["loss"], rel=1e-5)


def join_alone(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lets `joined` believe in a second process; the stores that it meets at."""
    place, met = torch.distributed.HashStore(), list[Any]()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "_meeting_point", lambda: place)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, store, **__: met.append(store))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    return met


def test_each_training_of_a_process_meets_at_a_place_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a process finds where another one was in the training before, and waits there."""
    met = join_alone(monkeypatch)
    for _ in range(2):
        with joined("cpu"):
            pass
    first, second = met
    first.set("address", "of before")
    assert first.check(["address"]) and not second.check(["address"])


def test_a_process_whose_companion_is_gone_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    join_alone(monkeypatch)
    gone = "[/build/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:14757. Check the logs"
    with pytest.raises(UserError, match="process 0 of 2: another process of this training has ended"), joined("cpu"):
        raise RuntimeError(gone)
    with pytest.raises(RuntimeError, match="a bug"), joined("cpu"):
        raise RuntimeError("a bug")


def log_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "changes", [{}, {"accumulate": True, "parallel": "fsdp", "batch": LOPSIDED} | CONSISTENT], ids=["ddp", "fsdp"]
)
def test_one_and_two_processes_train_alike(small: Small, changes: dict[str, object]) -> None:
    # A broken file: what replaces it is the same, too.
    (small.workspace.root.parent / "media" / "clips-004.mp4").write_bytes(b"broken")
    root = small.workspace.root.parent
    folders = [small.workspace.run_dir(f"world-{world}") for world in (1, 2)]
    for folder, world in zip(folders, (1, 2), strict=True):
        torchrun(root, folder, world, **changes)
    one, two = (log_of(folder) for folder in folders)
    assert [row["kind"] for row in one] == [row["kind"] for row in two]
    assert [row for row in one if row["kind"] == "replaced"] == [row for row in two if row["kind"] == "replaced"]
    assert any(row["kind"] == "replaced" for row in one)
    for before, after in zip(one, two, strict=True):
        if before["kind"] != "train":
            continue
        assert math.isclose(float(before["loss"]), float(after["loss"]), rel_tol=1e-4)  # type: ignore[arg-type]
        for name, facts in before["sources"].items():  # type: ignore[attr-defined]
            assert facts["slots"] == after["sources"][name]["slots"]  # type: ignore[index]
            assert facts.get("consistency", {}).keys() == after["sources"][name].get("consistency", {}).keys()  # type: ignore[index]
    weights = [load_checkpoint(folder / "last.safetensors")[0].state_dict() for folder in folders]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)
