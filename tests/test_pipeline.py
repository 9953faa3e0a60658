"""The main job from first to last on a tiny world: what came out, that it is done once, that kills leave no trace."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from omnisource.demo import WorldSize, make_world
from omnisource.networks import load_checkpoint
from omnisource.pipeline import run
from omnisource.recipe import Recipe, load_recipe
from omnisource.tables import digest_table, read_table
from omnisource.workspace import StageRecord, Workspace

RECIPE = Path(__file__).parents[1] / "src/omnisource/demo/recipe.yaml"
TINY = WorldSize(
    train_clips=4, test_clips=2, train_scenes=2, test_scenes=2, images=40, clips=24, untrimmed=3, width=96, height=72,
    untrimmed_seconds=(9.0, 12.0),
)  # fmt: skip
PARTS = ("student", "teachers.image", "teachers.video")
FEW = {"target": 4, "images": 4, "clips": 3, "untrimmed": 1}
SMALL = [
    "seeds=[0]",
    "student.epochs=1",
    "teachers.image.epochs=1",
    "teachers.video.epochs=1",
    "select.threshold=0.0",
    "select.rule=teacher",
    "runs={target-only: {sources: [target]}, all: {sources: [target, images, clips, untrimmed]},"
    " again: {sources: [target, images, clips, untrimmed], teacher: all}}",
    "test={clips: 1, crops: 1, bootstrap: 50}",
    *(f"{part}.network.options.base_width=8" for part in ("student", "teachers.image", "teachers.video")),
    *(
        f"{part}.input.{key}"
        for part in ("student", "teachers.image", "teachers.video")
        for key in ("size=32", "short_side=36")
    ),
]
STAGES = ["ingest", "probe", "dedupe", "train-teacher-image", "train-teacher-video", "score", "select", "camera"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("film") / "world", size=TINY, seed=3).root


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    place = tmp_path_factory.mktemp("run") / "ws"
    run(recipe_for(world), place, jobs=1)
    return Workspace(place)


def recipe_for(world: Path) -> Recipe:
    return load_recipe(RECIPE, [f"data={world}", *SMALL])


def rows(workspace: Workspace, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_table(workspace.table(table)).to_pylist()
    return found


def test_every_file_is_accounted_for(finished: Workspace) -> None:
    samples = rows(finished, "samples")
    assert len(samples) == 8 * (4 + 2) + 40 + 24 + 3
    probe = {row["sample_id"]: row for row in rows(finished, "probe")}
    assert set(probe) == {row["sample_id"] for row in samples}
    web = {row["sample_id"] for row in samples if row["role"] == "web"}
    readable = {i for i in web if probe[i]["status"] == "ok"}
    assert len(readable) < len(web), "the world has broken files"
    duplicates = {row["sample_id"]: row for row in rows(finished, "duplicates")}
    assert set(duplicates) == readable
    new = {i for i in readable if duplicates[i]["status"] == "ok"}
    assert len(new) < len(readable), "the world has duplicates"
    assert {row["sample_id"] for row in rows(finished, "scores")} == new
    assert {row["sample_id"] for row in rows(finished, "decisions-default")} == new


def test_every_drop_has_a_reason(finished: Workspace) -> None:
    for table in ("samples", "probe", "duplicates", "scores"):
        assert all(row["reason"] for row in rows(finished, table) if row["status"] != "ok")
    decisions = rows(finished, "decisions-default")
    assert all(row["reason"] for row in decisions if not row["keep"])
    assert all(row["label"] for row in decisions if row["keep"] and not row["negative"])


def test_the_student_loads_and_predicts(finished: Workspace) -> None:
    network, meta = load_checkpoint(finished.run_dir("all-0") / "last.safetensors")
    assert list(meta.classes) == finished.classes()
    with torch.inference_mode():
        logits = network.eval()(torch.zeros(2, 3, 8, 32, 32))
    assert logits.shape == (2, 8)
    assert torch.isfinite(logits).all()


def test_accuracies_stand_in_the_records_and_the_report(finished: Workspace) -> None:
    record = finished.record("test-all-0")
    assert record is not None
    assert 0 <= record.counts["top1"] <= 1
    assert record.counts["samples"] == 16
    page = finished.report_path.read_text()
    assert page.startswith("<!doctype html>")
    assert "How good were the filters?" in page
    assert page.count("data:image/jpeg;base64,") > 10


def test_students_teach_the_next_round(finished: Workspace) -> None:
    scores, first = rows(finished, "scores-all"), rows(finished, "scores")
    assert {row["teacher"] for row in scores} == {"all-0"}
    assert {(row["sample_id"], row["unit"]) for row in scores} == {(row["sample_id"], row["unit"]) for row in first}
    assert [row["entropy"] for row in scores] != [row["entropy"] for row in first]
    kept = [row for row in rows(finished, "decisions-default.all") if row["keep"]]
    record = finished.record("train-again-0")
    assert record is not None
    assert sum(record.counts["units"].values()) == 8 * 4 + len(kept)
    assert "selection by the students of all" in finished.report_path.read_text()


def test_media_are_prepared_where_a_training_reads_them(world: Path, tmp_path: Path) -> None:
    sets = [override for override in SMALL if not override.startswith("runs=")]
    sets += ["sources={target: {role: target, path: target.csv, max_per_class: 1}}", "truth=null"]
    sets += ["student.batch={target: 8}", "student.input.prepared=true"]
    told: list[str] = []

    def until_prepared(record: StageRecord) -> None:
        told.append(record.stage)
        if record.stage == "prepare":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(load_recipe(RECIPE, [f"data={world}", *sets]), tmp_path / "ws", jobs=1, tell=until_prepared)
    assert told == ["ingest", "probe", "prepare"]


def test_again_does_nothing(world: Path, finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    again: list[StageRecord] = []
    monkeypatch.delattr("omnisource.pipeline.side_by_side")  # not even a process begins
    run(recipe_for(world), finished.root, jobs=2, tell=again.append)
    assert [record.stage for record in again if record.fresh] == []
    assert [record.stage for record in again][:8] == STAGES


def test_a_deleted_output_redoes_its_stage_and_what_follows(world: Path, finished: Workspace) -> None:
    before = state(finished)
    finished.table("decisions-default").unlink()
    again: list[StageRecord] = []
    run(recipe_for(world), finished.root, jobs=1, tell=again.append)
    fresh = [record.stage for record in again if record.fresh]
    again_from_all = ["score-all", "select-default.all", "train-again-0", "test-again-0"]
    assert fresh == ["select", "train-all-0", "test-all-0", *again_from_all, "report"]
    assert state(finished) == before


def test_kills_leave_no_trace(world: Path, finished: Workspace, tmp_path: Path) -> None:
    wanted = state(finished)
    place = tmp_path / "ws"
    settings = [word for override in SMALL for word in ("--set", override)]
    command = [sys.executable, "-m", "omnisource", "run", str(RECIPE), "--set", f"data={world}", *settings]
    command += ["--workspace", str(place), "--jobs", "1"]
    dice = random.Random(int(os.environ.get("OMNISOURCE_KILL_SEED", "7")))
    deadline = time.monotonic() + 240
    kills = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        # Start-up takes some seconds; the first kills fall into the stages, the last run is left alone.
        wait = dice.uniform(3.0, 12.0) if kills < 4 and time.monotonic() < deadline else None
        try:
            _, complaints = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0, complaints.decode()
        break
    assert kills > 0
    assert state(Workspace(place)) == wanted


def test_the_tennis_recipe_on_real_media(shared: Path, tmp_path: Path) -> None:
    """The shipped recipe on a few real files of every format: its numbers mean nothing, its bookkeeping does."""
    sets = [f"data={shared / 'data/tennis'}", "student.epochs=1", "test={clips: 1, crops: 1, bootstrap: 50}"]
    sets += [f"teachers.{name}.epochs=1" for name in ("image", "video")] + ["seeds=[0]"]
    sets += [f"{part}.batch.target=8" for part in PARTS]
    sets += [f"{part}.input.{key}" for part in PARTS for key in ("size=32", "short_side=36", "frames=2")]
    sets += [f"sources.{name}.max_per_class={count}" for name, count in FEW.items()]
    sets += ["select.rule=teacher", "select.threshold=0.0", "dedupe.frames=1"]
    sets += ["runs={target-only: {sources: [target]}, all: {sources: [target, images, clips, untrimmed]}}"]
    root = Path(__file__).parents[1]
    report = run(load_recipe(root / "recipes/tennis.yaml", sets), tmp_path / "ws", jobs=1)
    workspace = Workspace(tmp_path / "ws")
    test_every_drop_has_a_reason(workspace)
    samples = rows(workspace, "samples")
    assert len(samples) == 7 * (4 + 4) + 7 * 4 + 7 * 3 + 7 * 1
    assert {row["sample_id"] for row in rows(workspace, "probe")} == {row["sample_id"] for row in samples}
    kept = {row["source"] for row in rows(workspace, "decisions-default") if row["keep"]}
    assert kept == {"images", "clips", "untrimmed"}
    network, meta = load_checkpoint(workspace.run_dir("all-0") / "last.safetensors")
    assert list(meta.classes) == workspace.classes()
    record = workspace.record("test-all-0")
    assert record is not None and record.counts["samples"] == 7 * 4
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 3, 2, 32, 32)).shape == (1, 7)
    assert "teacher&#39;s selection" in report.read_text() or "teacher's selection" in report.read_text()


def state(workspace: Workspace) -> dict[str, Any]:
    """Everything that must not depend on interruptions: tables, accuracies, weights."""
    found: dict[str, Any] = {
        path.stem: digest_table(read_table(path)) for path in (workspace.root / "tables").glob("*.parquet")
    }
    for path in sorted((workspace.root / "runs").glob("*/last.safetensors")):
        network, _ = load_checkpoint(path)
        found[path.parent.name] = {name: value.double().sum().item() for name, value in network.state_dict().items()}
    for record in workspace.records():
        if record.stage.startswith("test-"):
            found[record.stage] = json.dumps(record.counts, sort_keys=True)
    return found
