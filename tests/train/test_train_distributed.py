"""Two processes under torchrun train as one does: the same samples, and with fixed norms the same losses."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_small import Small

from omnisource.networks import load_checkpoint

SCRIPT = Path(__file__).with_name("train_run.py")
SETTINGS = {
    "network": {"name": "slowonly_r18", "dropout": 0.0, "norm": "frozen", "options": {"base_width": 8}},
    "mixup": {"kind": "cross"},
    "checkpoint_every": 0.5,
}


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


def log_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("changes", [{}, {"accumulate": True, "parallel": "fsdp"}], ids=["ddp", "fsdp"])
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
    weights = [load_checkpoint(folder / "last.safetensors")[0].state_dict() for folder in folders]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)
