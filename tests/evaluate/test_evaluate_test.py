"""The test stage: the protocol's numbers, honest counts, resume, refusals."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from omnisource import evaluate
from omnisource.cli import app
from omnisource.clips import augment, dense_test, read_views, segment_test
from omnisource.curate import probe
from omnisource.errors import UserError
from omnisource.evaluate import read_predictions, summarise, summarise_folds
from omnisource.evaluate import test as stage
from omnisource.flow import compute_flow
from omnisource.ingest import ingest
from omnisource.networks import Meta, create, load_checkpoint, save_checkpoint
from omnisource.recipe import Flow, Recipe, load_recipe
from omnisource.recipe import Test as Views
from omnisource.tables import read_table
from omnisource.workspace import Workspace, open_workspace

run_test = evaluate.test_run  # under this name pytest does not take it for a test
CLASSES = ["left", "right"]


def film(path: Path, dx: int, frames: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    ground = random.integers(0, 255, 3)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 60, "yuv420p"
        for n in range(frames):
            picture = np.full((60, 80, 3), ground, np.uint8)
            left = (30 + dx * n) % 60
            picture[20:40, left : left + 20] = 240
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for label, dx in (("left", -3), ("right", 3)):
        for n in range(8):
            film(folder / "target" / label / f"{label}{n}.mp4", dx, 3 + 4 * n, n)
    (folder / "target" / "left" / "page.mp4").write_text("<html>gone</html>")
    rows = [
        f"{path.relative_to(folder / 'target')},{path.parent.name},{path.stem[-1]}"
        for path in sorted((folder / "target").rglob("*.mp4"))
    ]
    (folder / "target" / "list.csv").write_text(
        "path,label,number\n" + "\n".join([*rows, "left/gone.mp4,left,9"]) + "\n"
    )
    return folder


def recipe_of(media: Path, **student: Any) -> Recipe:
    student = {"network": {"name": "slowonly_r18", "options": {"base_width": 8}}, **student}
    student.setdefault("input", {"frames": 4, "stride": 2, "short_side": 48, "size": 40})
    return Recipe.model_validate(
        {
            "name": "t",
            "data": media,
            "classes": CLASSES,
            "sources": {
                "target": {
                    "role": "target",
                    "path": "target/list.csv",
                    "test": {"number": ["3", "4", "5", "6", "7", "9", "e"]},
                    "missing": "drop",
                }
            },
            "teachers": {"image": {"network": {"name": "tsn_r18"}}, "video": {"network": {"name": "slowonly_r18"}}},
            "student": {"workers": 2, **student},
            "test": {"clips": 3, "crops": 3, "batch": 4, "bootstrap": 100},
        }
    )


def prepare(recipe: Recipe, workspace: Workspace, classes: list[str] = CLASSES) -> None:
    """Ingest and probe for real; the training is random weights."""
    ingest(recipe, workspace)
    probe(recipe, workspace)
    train(recipe, workspace, "target-only-0", classes)


def train(recipe: Recipe, workspace: Workspace, name: str, classes: list[str] = CLASSES, seed: int = 0) -> None:
    path = workspace.run_dir(name) / "last.safetensors"
    given = recipe.student

    def work(_: str) -> dict[str, Any]:
        torch.manual_seed(seed)
        channels = 2 if given.input.modality == "flow" else 3
        network = create(given.network.name, len(classes), in_channels=channels, **given.network.options)
        torch.nn.init.normal_(network.head.weight)
        save_checkpoint(path, network, Meta(classes=tuple(classes), frames=given.input.frames))
        return {}

    workspace.run_stage(f"train-{name}", settings={"seed": seed}, after=[], outputs=[path], work=work)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path / "w") as opened:
        yield opened


def plainly(workspace: Workspace, uri: str, clips: np.ndarray, size: int) -> np.ndarray:
    network, meta = load_checkpoint(workspace.run_dir("target-only-0") / "last.safetensors")
    views = torch.from_numpy(read_views(uri, clips, crops=3, size=size, short_side=48))
    with torch.inference_mode():
        return network(augment(views, mean=meta.mean, std=meta.std)).double().softmax(1).numpy()


def test_a_student_is_tested_with_every_view(media: Path, workspace: Workspace) -> None:
    recipe = recipe_of(media)
    prepare(recipe, workspace)
    record = run_test(recipe, workspace, "target-only", 0)
    counts = record.counts
    assert (counts["listed"], counts["samples"], counts["missing"], counts["failed"]) == (11, 10, 1, {"not_media": 1})
    ingested = workspace.record("ingest")
    assert ingested is not None and counts["list_hash"] == ingested.counts["list_hash"]["test"]
    rows = read_table(workspace.table("predictions-target-only-0")).to_pylist()
    samples = {row["sample_id"]: row for row in read_table(workspace.table("samples")).to_pylist()}
    by_sample: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row["status"] == "ok":
            by_sample.setdefault(row["sample_id"], {})[row["view"]] = row["probs"]
    assert len(by_sample) == 10
    hits = 0
    for sample_id, views in by_sample.items():
        assert sorted(views) == list(range(-1, 9))
        sample = samples[sample_id]
        frames = 3 + 4 * int(Path(sample["uri"]).stem[-1])
        expected = plainly(workspace, sample["uri"], dense_test(frames, 4, 2, 3), 48)
        np.testing.assert_allclose([views[n] for n in range(9)], expected, atol=1e-5)
        np.testing.assert_allclose(views[-1], expected.mean(0), atol=1e-5)
        hits += CLASSES[int(np.argmax(views[-1]))] == sample["label"]
    assert counts["top1"] == pytest.approx(hits / 10)
    assert not run_test(recipe, workspace, "target-only", 0).fresh
    (summary,) = summarise(workspace, recipe)
    assert (summary.top1, summary.samples, summary.failed) == (counts["top1"], 10, 1)


def test_a_2d_network_sees_segments(media: Path, workspace: Workspace) -> None:
    recipe = recipe_of(media, network={"name": "tsn_r18", "options": {"base_width": 8}})
    prepare(recipe, workspace)
    run_test(recipe, workspace, "target-only", 0, Views(clips=5, crops=3, average="score"))
    found = read_predictions(workspace.table("predictions-target-only-0"))
    samples = {row["sample_id"]: row for row in read_table(workspace.table("samples")).to_pylist()}
    network, meta = load_checkpoint(workspace.run_dir("target-only-0") / "last.safetensors")
    for n, sample_id in enumerate(found.sample_ids):
        uri = samples[sample_id]["uri"]
        frames = segment_test(3 + 4 * int(Path(uri).stem[-1]), 5)[None]
        views = torch.from_numpy(read_views(uri, frames, crops=3, size=48, short_side=48))
        with torch.inference_mode():
            logits = network(augment(views, mean=meta.mean, std=meta.std)).mean(0)
        np.testing.assert_allclose(found.probs[n], logits.softmax(0).numpy(), atol=1e-5)


def test_flow_goes_through_the_same_path(media: Path, workspace: Workspace) -> None:
    given = {"frames": 4, "stride": 2, "short_side": 48, "size": 40, "modality": "flow"}
    recipe = recipe_of(media, input=given).model_copy(update={"flow": Flow(method="dis", workers=1)})
    prepare(recipe, workspace)
    with pytest.raises(UserError, match="needs 'flow'"):
        run_test(recipe, workspace, "target-only", 0)
    compute_flow(recipe, workspace)
    record = run_test(recipe, workspace, "target-only", 0, Views(clips=1, crops=1))
    assert (record.counts["listed"], record.counts["samples"], record.counts["failed"]) == (11, 10, {"no_flow": 1})
    run_test(recipe, workspace, "target-only", 0, Views(clips=1, crops=10))
    rows = read_table(workspace.table("predictions-target-only-0")).to_pylist()
    first = next(row["sample_id"] for row in rows if row["status"] == "ok")
    (uri,) = (r["uri"] for r in read_table(workspace.table("flow")).to_pylist() if r["sample_id"] == first)
    (frames,) = (r["video_frames"] for r in read_table(workspace.table("flow")).to_pylist() if r["sample_id"] == first)
    network, _ = load_checkpoint(workspace.run_dir("target-only-0") / "last.safetensors")
    # Of ten crops every other one is mirrored, and what moves to the right then moves to the left.
    plain = torch.from_numpy(read_views(uri, dense_test(frames, 4, 2, 1), crops=10, size=40, short_side=48))
    mirrored = torch.arange(10) % 2 == 1
    plain[mirrored, ..., 0] = 255 - plain[mirrored, ..., 0]
    with torch.inference_mode():
        expected = network(augment(plain, mean=(), std=(), flow=True)).softmax(1)
    found = [row["probs"] for row in rows if row["sample_id"] == first and row["view"] >= 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_other_splits_have_their_own_table(media: Path, workspace: Workspace) -> None:
    recipe = recipe_of(media)
    prepare(recipe, workspace)
    record = run_test(recipe, workspace, "target-only", 0, Views(split="train", clips=1, crops=1))
    assert record.stage == "test-target-only-0-train"
    assert record.counts["samples"] == 6
    assert workspace.table("predictions-target-only-0-train").exists()
    with pytest.raises(UserError, match="no target sample in the split 'val'"):
        run_test(recipe, workspace, "target-only", 0, Views(split="val"))


def test_processes_share_a_test_without_loss_or_repetition(media: Path, workspace: Workspace) -> None:
    recipe = recipe_of(media, workers=1)
    prepare(recipe, workspace)
    run_test(recipe, workspace, "target-only", 0)
    alone = read_table(workspace.table("predictions-target-only-0"))
    train(recipe, workspace, "target-only-1")  # the same weights
    run_test(recipe, workspace, "target-only", 1, recipe.test.model_copy(update={"processes": 2}))
    shared = read_table(workspace.table("predictions-target-only-1"))
    assert shared.drop_columns(["probs"]) == alone.drop_columns(["probs"])
    before, after = (np.array(table["probs"].drop_null().to_pylist()) for table in (alone, shared))
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_a_killed_test_goes_on_where_it_stopped(
    media: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(media)
    prepare(recipe, workspace)
    seen: list[str] = []
    ask = stage.infer

    def killed_after(limit: int) -> Any:
        def asking(network: Any, meta: Any, requests: Any, **given: Any) -> Any:
            for count, result in enumerate(ask(network, meta, requests, **given)):
                if count == limit:
                    raise KeyboardInterrupt
                seen.append(str(result.request.key))
                yield result

        return asking

    monkeypatch.setattr(stage, "infer", killed_after(4))
    with pytest.raises(KeyboardInterrupt):
        run_test(recipe, workspace, "target-only", 0)
    monkeypatch.setattr(stage, "infer", killed_after(99))
    record = run_test(recipe, workspace, "target-only", 0)
    assert len(seen) == len(set(seen)) == record.counts["samples"] == 10
    whole = read_table(workspace.table("predictions-target-only-0"))
    shutil.rmtree(workspace.root / "stages", ignore_errors=False)
    (workspace.root / "stages").mkdir()
    prepare(recipe, workspace)
    monkeypatch.setattr(stage, "infer", ask)
    run_test(recipe, workspace, "target-only", 0)
    again = read_table(workspace.table("predictions-target-only-0"))
    assert again.drop_columns(["probs"]) == whole.drop_columns(["probs"])
    np.testing.assert_allclose(
        np.concatenate(again["probs"].drop_null().to_pylist()),
        np.concatenate(whole["probs"].drop_null().to_pylist()),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["left", "right", "up"], "trained for 3 classes, this recipe has 2, 2 of them in common"),
        (["right", "left"], "2 of them in common, in another order"),
    ],
)
def test_a_checkpoint_of_other_classes_is_refused(
    media: Path, workspace: Workspace, classes: list[str], message: str
) -> None:
    recipe = recipe_of(media)
    prepare(recipe, workspace, classes)
    with pytest.raises(UserError, match=message):
        run_test(recipe, workspace, "target-only", 0)


def test_an_untrained_run_is_refused(media: Path, workspace: Workspace) -> None:
    recipe = recipe_of(media)
    prepare(recipe, workspace)
    with pytest.raises(UserError, match="needs 'train-target-only-7'"):
        run_test(recipe, workspace, "target-only", 7)


def write_recipe(recipe: Recipe, path: Path) -> str:
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return str(path)


def test_the_verb_tests_what_is_trained_and_files_from_elsewhere(media: Path, tmp_path: Path) -> None:
    recipe = recipe_of(media)
    with open_workspace(tmp_path / "w") as workspace:
        prepare(recipe, workspace)
        checkpoint = tmp_path / "other.safetensors"
        shutil.copy(workspace.run_dir("target-only-0") / "last.safetensors", checkpoint)

    def invoke(*options: str) -> str:
        words = ["test", write_recipe(recipe, tmp_path / "r.yaml"), "-w", str(tmp_path / "w"), *options]
        quick = ["--set", "test.clips=1", "--set", "test.crops=1"]
        done = CliRunner().invoke(app, [*words, *quick], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    assert "target-only" in invoke()
    invoke("--checkpoint", str(checkpoint), "--name", "other")
    tables = tmp_path / "w" / "tables"
    ours, other = (read_predictions(tables / f"predictions-{name}.parquet") for name in ("target-only-0", "other"))
    np.testing.assert_allclose(ours.probs, other.probs, atol=1e-6)
    with pytest.raises(UserError, match="is the name of a training of this recipe"):
        invoke("--checkpoint", str(checkpoint), "--name", "target-only-0")
    with pytest.raises(UserError, match="no run 'everything'; runs are: target-only"):
        invoke("--run", "everything")
    with pytest.raises(UserError, match="no target source chooses by fold"):
        invoke("--folds", "1,2")
    for name in ("../other", "", ".", "a/b"):
        with pytest.raises(UserError, match="becomes the name of a file"):
            invoke("--checkpoint", str(checkpoint), "--name", name)
    said = invoke("--checkpoint", str(checkpoint), "--name", "other")
    assert "failed 1 not_media" in said and "top1 interval" in said and ours.list_hash in said
    assert "trained on" not in said, "the table is of the recipe's own runs"
    table = invoke()
    assert f"test list {ours.list_hash}" in table and "10 of 11" in table


def test_a_checkpoint_of_the_other_stream_is_refused(media: Path, workspace: Workspace) -> None:
    given = {"frames": 4, "stride": 2, "short_side": 48, "size": 40, "modality": "flow"}
    prepare(recipe_of(media, input=given), workspace)
    checkpoint = workspace.run_dir("target-only-0") / "last.safetensors"
    recipe = recipe_of(media)
    with pytest.raises(UserError, match=r"2 input channels \(flow\), this recipe tests on rgb"):
        evaluate.test_checkpoint(recipe, workspace, "x", checkpoint, recipe.student, recipe.test)


def test_a_checkpoint_that_wants_longer_clips_is_refused_and_unnamed_classes_are_pointed_out(
    media: Path, workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, checkpoint = recipe_of(media), tmp_path / "kinetics.safetensors"
    prepare(recipe, workspace)
    save_checkpoint(checkpoint, create("i3d_r50", len(CLASSES), base_width=8), Meta())
    with pytest.raises(UserError, match=r"at least 5 frames, this recipe shows 4; add --set student\.input\.frames=5"):
        evaluate.test_checkpoint(recipe, workspace, "x", checkpoint, recipe.student, recipe.test)
    said = " ".join(capsys.readouterr().err.split())
    assert "kinetics.safetensors names no classes" in said
    assert "kinetics.safetensors was trained with frames 8; tested with 4 (student.input.frames)" in said
    assert "with fps" not in said


def test_folds_are_tested_and_averaged(media: Path, tmp_path: Path) -> None:
    recipe = recipe_of(media)
    source = recipe.sources["target"].model_copy(update={"test": {"fold": 1}})
    recipe = recipe.model_copy(update={"sources": {"target": source}})
    rows = (media / "target" / "list.csv").read_text().splitlines()[1:-1]
    lines = [
        "path,label,fold",
        *(f"{path},{label},{n}" for path, label, n in (row.split(",") for row in rows) if n != "e"),
    ]
    (media / "target" / "folds.csv").write_text("\n".join(lines) + "\n")
    recipe = recipe.model_copy(update={"sources": {"target": source.model_copy(update={"path": "target/folds.csv"})}})
    path = write_recipe(recipe, tmp_path / "r.yaml")
    for fold in (3, 4):
        with open_workspace(tmp_path / f"fold-{fold}") as workspace:
            prepare(load_recipe(Path(path), [f"sources.target.test.fold={fold}"]), workspace)
    done = CliRunner().invoke(app, ["test", path, "-w", str(tmp_path), "--folds", "3,4"], catch_exceptions=False)
    assert done.exit_code == 0
    with open_workspace(tmp_path / "fold-3") as one, open_workspace(tmp_path / "fold-4") as two:
        (summary,) = summarise_folds([one, two], recipe)
    assert (summary.folds, summary.samples, len(set(summary.list_hashes))) == (2, 4, 2)
    assert f"{100 * summary.top1:.1f}" in done.output
    assert all(found in done.output for found in summary.list_hashes)
    with pytest.raises(
        UserError, match=r"fold-5: missing \(1 of 2 folds are\); train it .* sources.target.test.fold=5"
    ):
        CliRunner().invoke(app, ["test", path, "-w", str(tmp_path), "--folds", "3,5"], catch_exceptions=False)
    assert not (tmp_path / "fold-5").exists()
