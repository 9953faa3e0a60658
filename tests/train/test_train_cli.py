"""`omnisource train` and `omnisource plan`: alone, under torchrun, and on a full disk."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import torch
from train_run import end_of, run
from train_small import Small
from typer.testing import CliRunner

from omnisource.cli import app
from omnisource.errors import UserError
from omnisource.networks import load_checkpoint
from omnisource.recipe import Recipe
from omnisource.tables import read_table
from omnisource.train import Plan, build_pool


def write_recipe(small: Small, recipe: Recipe | None = None) -> Path:
    """A recipe as a file beside the small workspace."""
    path = small.workspace.root.parent / "recipe.yaml"
    path.write_text((recipe or small.recipe).model_dump_json())  # JSON is YAML
    return path


def omnisource(small: Small, *words: str) -> str:
    """What a verb prints that has to succeed."""
    done = CliRunner().invoke(app, [*words, "--workspace", str(small.workspace.root)])
    assert done.exit_code == 0, done.output
    return done.output


def log_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_train_trains_what_it_is_told_to_and_all_that_it_can(small: Small) -> None:
    recipe = str(write_recipe(small))
    said = omnisource(small, "train", recipe, "all", "--seed", "3", "--seed", "4", "--set", "student.epochs=1")
    assert "train-all-3 done" in said and "train-all-4 done" in said
    first, second = (
        load_checkpoint(small.workspace.run_dir(name) / "last.safetensors")[0] for name in ("all-3", "all-4")
    )
    assert not torch.equal(first.head.weight, second.head.weight)
    assert "nothing to do" in omnisource(small, "train", recipe, "all", "--seed", "3", "--set", "student.epochs=1")
    said = omnisource(small, "train", recipe, "--set", "student.epochs=1", "--set", "seeds=[3]")
    assert "train-teacher-image done" in said and "train-teacher-video done" in said
    assert "train-all-3 nothing to do" in said
    for words, message in (
        (["sideways"], "'sideways' is no teacher"),
        (["all", "--anew", "--allow-changed"], "contradict each other"),
    ):
        done = CliRunner().invoke(app, ["train", recipe, *words, "--workspace", str(small.workspace.root)])
        assert isinstance(done.exception, UserError) and message in str(done.exception)


def test_plan_writes_the_slots_of_the_steps(small: Small) -> None:
    recipe, out = str(write_recipe(small)), small.workspace.root.parent / "plan.parquet"
    assert "30 slots" in omnisource(small, "plan", recipe, "--steps", "2:5", "--out", str(out), "--seed", "7")
    table = read_table(out)
    pool = build_pool(small.recipe, small.workspace, list(small.recipe.sources), by_frame=False)
    plan = Plan(pool, small.recipe.student, 7)
    for number, step in enumerate((2, 3, 4)):
        slots, rows = plan.step(step), table.slice(10 * number, 10).to_pylist()
        assert [(row["step"], row["slot"]) for row in rows] == [(step, slot) for slot in range(10)]
        assert [row["sample_id"] for row in rows] == [pool.unit(int(unit)).sample_id for unit in slots.unit]
        assert [row["key"] for row in rows] == slots.key.tolist()
        assert all(len(row["frames"]) == (1 if row["kind"] == "image" else 4) for row in rows)
    omnisource(small, "plan", recipe, "--run", "image", "--steps", "0:1", "--out", str(out))
    assert set(read_table(out)["source"].to_pylist()) == {"clips"}
    assert "80 slots" in omnisource(small, "plan", recipe, "--out", str(out))  # all eight steps
    for words, message in (
        (["--steps", "5:2"], "write it as A:B with A < B"),
        (["--steps", "5"], "write it as A:B with A < B"),
        (["--steps", "0:9"], "has 8 steps"),
        (["--run", "none"], "'none' is no run"),
    ):
        given = ["plan", recipe, "--out", str(out), *words, "--workspace", str(small.workspace.root)]
        done = CliRunner().invoke(app, given)
        assert isinstance(done.exception, UserError) and message in str(done.exception)


def test_torchrun_trains_as_one_process_does(small: Small) -> None:
    """The command of the documentation, with two processes: the same batches, the same result but for rounding."""
    changes = {"epochs": 1, "network__norm": "frozen", "mixup__kind": "cross", "checkpoint_every": 0.5}
    recipe = str(write_recipe(small, small.with_student(**changes)))
    omnisource(small, "train", recipe, "all", "--seed", "0")
    alone = small.workspace.run_dir("all-0")
    kept = alone.rename(alone.with_name("alone"))
    (small.workspace.root / "stages" / "train-all-0.json").unlink()
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "omnisource"]
    command = [sys.executable, *launch, "train", recipe, "all", "--workspace", str(small.workspace.root)]
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--seed", "0"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:6000]
    one, two = log_of(kept), log_of(alone)
    assert json.loads((alone / "run.json").read_text())["world"] == 2
    assert [row["step"] for row in one] == [row["step"] for row in two] == [1, 2, 3, 4]
    for before, after in zip(one, two, strict=True):
        assert math.isclose(float(before["loss"]), float(after["loss"]), rel_tol=1e-4)  # type: ignore[arg-type]
    states = [load_checkpoint(folder / "last.safetensors")[0].state_dict() for folder in (kept, alone)]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-4)


def test_a_full_disk_keeps_the_last_checkpoint_and_the_same_command_goes_on(small: Small) -> None:
    """The kernel's limit on the size of a file is the full disk: it cuts off a write at any byte."""
    changes = {"epochs": 10, "checkpoint_every": 1, "optimiser__lr": 0.001}
    student = small.with_student(**changes).student.model_dump(mode="json")
    recipe = str(write_recipe(small, small.with_student(**changes)))
    root, folder, straight = (
        small.workspace.root.parent,
        small.workspace.run_dir("all-5"),
        small.workspace.run_dir("whole"),
    )
    run(root, straight, student)
    assert end_of(root, folder, student, "line", 34) == -signal.SIGKILL
    log = folder / "log.jsonl"
    kept, step = (folder / "state.pt").read_bytes(), 32
    lines = log.read_bytes().splitlines(keepends=True)
    of_state = sum(map(len, lines[:step]))  # the log is cut back to what the checkpoint saw

    def train(limit: int | None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "omnisource", "train", recipe, "all", "--seed", "5"]
        return subprocess.run(
            [*command, "--workspace", str(small.workspace.root)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))),
            capture_output=True,
            text=True,
            check=False,
        )

    for limit, file in ((of_state + 100, log), (len(kept) // 2, folder / "state.pt")):
        done = train(limit)
        assert done.returncode == 2, done.stderr
        assert (
            done.stderr.strip()
            .splitlines()[-1]
            .endswith(f"{file}: the disk (or its quota) is full; free some space, the same command resumes")
        )
        assert "Traceback" not in done.stderr
        assert (folder / "state.pt").read_bytes() == kept
        assert not list(folder.glob(".*"))
    assert train(None).returncode == 0
    assert log.read_bytes() == (straight / "log.jsonl").read_bytes()
    weights = [load_checkpoint(one / "last.safetensors")[0].state_dict() for one in (straight, folder)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
