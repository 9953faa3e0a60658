"""Scoring real files of every format with small trained-looking teachers, against one file after another."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from omnisource.clips import augment, dense_test, read_clip, read_times, segment_test
from omnisource.clips.read import centre
from omnisource.curate import Engine, calibrate, dedupe, probe, score, select, what_if
from omnisource.curate.score import score_samples, units_by_teacher
from omnisource.curate.teacher import load_teacher
from omnisource.errors import UserError
from omnisource.ingest import ingest
from omnisource.networks import Meta, create, load_checkpoint, save_checkpoint, use_plain_form
from omnisource.pipeline import used_teachers
from omnisource.recipe import Recipe
from omnisource.tables import SCORES, Journal, read_table
from omnisource.train import target_parts
from omnisource.workspace import Workspace, open_workspace

CLASSES = ["jump", "wave"]
FPS = 10


def write_video(path: Path, seconds: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = np.asarray(Image.fromarray(rng.integers(0, 255, (5, 6, 3), np.uint8)).resize((64, 48)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(round(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(np.roll(base, 3 * number, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(coarse).resize((80, 60)).save(path)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    for at, name in enumerate(CLASSES):
        for number in range(2):
            write_video(root / "target" / name / f"{number}.mp4", 2, 10 * at + number)
            write_image(root / "images" / name / f"{number}.jpg", 50 + 10 * at + number)
        write_video(root / "clips" / name / "0.mp4", 3, 100 + at)
        write_video(root / "films" / name / "0.mp4", 16, 200 + at)
    (root / "clips" / "jump" / "broken.mp4").write_bytes((root / "clips" / "jump" / "0.mp4").read_bytes()[:400])
    return root


def a_recipe(media: Path, **changes: Any) -> Recipe:
    small = {"frames": 4, "stride": 2, "short_side": 40, "size": 32}
    values: dict[str, Any] = {
        "name": "test",
        "data": media,
        "sources": {
            "target": {"role": "target", "path": "target", "test_share": 0.5},
            "images": {"role": "web", "format": "image", "path": "images"},
            "clips": {"role": "web", "format": "clip", "path": "clips"},
            "films": {"role": "web", "format": "untrimmed", "path": "films"},
        },
        "dedupe": {"against_test": False},
        "teachers": {
            "image": {"network": {"name": "tsn_r18", "options": {"base_width": 8}}, "input": small},
            "video": {"network": {"name": "slowonly_r18", "options": {"base_width": 8}}, "input": small},
        },
        "student": {"network": {"name": "slowonly_r18"}},
        "runs": {
            "three": {"sources": ["target", "films"]},
            "two": {"sources": ["target", "films"], "set": {"network.name": "tsn_r18"}},
        },
        "score": {"segments": 3, "views": 2},
    }
    return Recipe.model_validate(values | changes)


def a_workspace(root: Path, recipe: Recipe) -> Workspace:
    """A workspace as it is when the teachers are trained; their weights are drawn, which scoring does not mind."""
    with open_workspace(root) as workspace:
        ingest(recipe, workspace)
        probe(recipe, workspace)
        dedupe(recipe, workspace)
    for seed, (name, training) in enumerate(recipe.teachers.items()):
        torch.manual_seed(seed)
        network = create(training.network.name, len(CLASSES), base_width=8)
        torch.nn.init.normal_(network.head.weight, std=3.0)
        meta = Meta(classes=("wave", "jump"), frames=4, stride=2, size=32)  # in another order than the workspace's
        save_checkpoint(workspace.run_dir(f"teacher-{name}") / "last.safetensors", network, meta)
        workspace.run_stage(f"train-teacher-{name}", settings={}, after=[], outputs=[], work=lambda _: {})
    return workspace


@pytest.fixture(scope="module")
def recipe(media: Path) -> Recipe:
    return a_recipe(media)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Workspace:
    workspace = a_workspace(tmp_path_factory.mktemp("workspace"), recipe)
    score(recipe, workspace, Engine(workers=2))
    return workspace


loaded = cache(load_checkpoint)


def plainly(workspace: Workspace, row: dict[str, Any], uri: str) -> npt.NDArray[np.float64]:
    """Probabilities of one unit, decoded by itself through the functions that training uses."""
    network, meta = loaded(workspace.run_dir(f"teacher-{row['teacher']}") / "last.safetensors")
    start, end = row["start_s"] or 0.0, row["end_s"]
    options = {"short_side": 40, "start_s": start, "end_s": end}
    crop, size = centre(32), 32
    if row["unit"] == "image":
        clips = [read_clip(uri, [0], crop, size, short_side=40)]
    elif row["unit"] == "frame":
        clips = [read_times(uri, [start], crop, size, short_side=40)]
    else:
        frames = 30 if row["unit"] == "clip" else round((end - start) * FPS)
        many = segment_test(frames, 3)[None] if network.spatial else dense_test(frames, 4, 2, 2)
        clips = [read_clip(uri, indices, crop, size, **options) for indices in many]
    x = augment(torch.from_numpy(np.stack(clips)), mean=meta.mean, std=meta.std)
    with torch.no_grad():
        probs = network(x).softmax(1).mean(0).numpy()
    return probs[[meta.classes.index(name) for name in CLASSES]]


def test_every_unit_is_scored_as_if_alone(workspace: Workspace) -> None:
    rows = read_table(workspace.table("scores")).to_pylist()
    uris = {row["sample_id"]: row for row in read_table(workspace.table("samples")).to_pylist()}
    count: dict[tuple[str, str], int] = {}
    for row in rows:
        count[row["teacher"], row["unit"]] = count.get((row["teacher"], row["unit"]), 0) + 1
        sample = uris[row["sample_id"]]
        wanted = plainly(workspace, row, sample["uri"])
        np.testing.assert_allclose(row["probs"], wanted, atol=2e-3)
        assert row["status"] == "ok"
        assert row["top_classes"][0] == int(np.argmax(row["probs"]))
        assert row["top_probs"][0] == pytest.approx(max(row["probs"]))
        assert row["query_prob"] == pytest.approx(row["probs"][CLASSES.index(sample["query_label"])])
        assert row["entropy"] == pytest.approx(-sum(p * np.log(p) for p in row["probs"] if p > 0), abs=1e-4)
    # 16 s: windows at 0 and 10; one frame a second
    assert count == {("image", "image"): 4, ("image", "frame"): 32, ("video", "clip"): 2, ("video", "window"): 4}


def test_running_again_does_nothing_and_selections_live_side_by_side(recipe: Recipe, workspace: Workspace) -> None:
    assert not score(recipe, workspace).fresh
    first = select(recipe, workspace)
    assert first.fresh and not select(recipe, workspace).fresh
    lenient = recipe.model_copy(update={"select": recipe.select.model_copy(update={"name": "all", "rule": "all"})})
    assert select(lenient, workspace).counts["kept"] == 42
    assert not select(recipe, workspace).fresh
    assert "query_trust" not in first.counts
    believing = recipe.select.model_copy(update={"name": "evidence", "query_evidence": True})
    trust = select(recipe.model_copy(update={"select": believing}), workspace).counts["query_trust"]
    assert set(trust) == {f"{source} ({unit})" for source, units in first.counts["sources"].items() for unit in units}
    assert all(0 < value < 1 for value in trust.values())
    rows = read_table(workspace.table("decisions-default"))
    assert rows.num_rows == 42
    kept = {
        (share.source, share.unit): share.kept
        for share in what_if(recipe, workspace, [recipe.select.threshold], ["agree"])
    }
    for source, units in first.counts["sources"].items():
        for unit, counts in units.items():
            assert counts["kept"] == kept[source, unit]
            assert counts["units"] == counts["kept"] + sum(counts["reasons"].values())


def test_a_killed_stage_goes_on_where_it_stopped(
    media: Path, tmp_path: Path, recipe: Recipe, workspace: Workspace
) -> None:
    other = a_workspace(tmp_path, recipe)
    samples = read_table(other.table("samples")).to_pylist()
    gone = next(row for row in samples if row["source"] == "images")
    # What a killed run leaves: a journal under the stage's mark. Its rows are taken over as they are.
    marks: list[str] = []

    class Killed(BaseException):
        pass

    def die(mark: str) -> dict[str, Any]:
        marks.append(mark)
        raise Killed

    real = other.run_stage
    other.run_stage = lambda stage, **options: real(stage, **options | {"work": die})  # type: ignore[method-assign,assignment]
    with pytest.raises(Killed):
        score(recipe, other)
    other.run_stage = real  # type: ignore[method-assign]
    row = {"sample_id": gone["sample_id"], "teacher": "image", "unit": "image", "status": "dropped", "reason": "marked"}
    Journal(other.partial("score") / "image", SCORES, ["sample_id"], marks[0]).append([row])
    score(recipe, other, Engine(workers=1))
    rows = {
        (r["sample_id"], r["teacher"], r["unit"], r["start_s"]): r
        for r in read_table(other.table("scores")).to_pylist()
    }
    whole = {
        (r["sample_id"], r["teacher"], r["unit"], r["start_s"]): r
        for r in read_table(workspace.table("scores")).to_pylist()
    }
    assert rows.keys() == whole.keys()
    changed = [key for key in rows if rows[key]["reason"] != whole[key]["reason"]]
    assert [key[0] for key in changed] == [gone["sample_id"]]


def test_a_file_that_vanishes_gets_rows_with_a_reason(tmp_path: Path, media: Path, recipe: Recipe) -> None:
    copy = tmp_path / "media"
    shutil.copytree(media, copy)
    mine = a_recipe(copy)
    workspace = a_workspace(tmp_path / "workspace", mine)
    (copy / "films" / "wave" / "0.mp4").unlink()
    record = score(mine, workspace, Engine(workers=1))
    rows = [row for row in read_table(workspace.table("scores")).to_pylist() if row["status"] != "ok"]
    assert {row["reason"] for row in rows} == {"missing"} and record.counts["failed"] == len(rows) == 18


def test_a_film_that_was_replaced_after_the_probe_is_not_scored(tmp_path: Path, media: Path, recipe: Recipe) -> None:
    copy = tmp_path / "media"
    shutil.copytree(media, copy)
    mine = a_recipe(copy)
    workspace = a_workspace(tmp_path / "workspace", mine)
    write_video(copy / "films" / "wave" / "0.mp4", 3, 7)  # shorter: its last frame would stand for all that is gone
    score(mine, workspace, Engine(workers=1))
    rows = [row for row in read_table(workspace.table("scores")).to_pylist() if row["status"] != "ok"]
    assert {row["reason"] for row in rows} == {"changed"} and len(rows) == 18


def test_what_is_scored_follows_from_the_planned_students(media: Path) -> None:
    def units(*networks: str) -> set[str]:
        runs = {str(i): {"sources": ["target"], "set": {"network.name": name}} for i, name in enumerate(networks)}
        return {unit for found in units_by_teacher(a_recipe(media, runs=runs)).values() for unit in found}

    assert units("slowonly_r18") == {"image", "clip", "window"}
    assert units("tsn_r18") == {"image", "clip", "frame"}
    windows = {"0": {"sources": ["target"], "set": {"network.name": "tsn_r18", "snippets.kind": "window"}}}
    asked = units_by_teacher(a_recipe(media, runs=windows))
    assert {unit for found in asked.values() for unit in found} == {"image", "clip", "window"}
    assert units("tsn_r18", "slowonly_r18") == {"image", "clip", "window", "frame"}


def test_only_teachers_with_something_to_score_are_wanted(media: Path) -> None:
    def fewer(*formats: str, **changes: object) -> Recipe:
        values = a_recipe(media).model_dump(mode="json") | {"runs": {}} | changes
        web = {name: one for name, one in values["sources"].items() if one.get("format") in formats}
        return Recipe.model_validate(values | {"sources": {"target": values["sources"]["target"]} | web})

    video = {"video": fewer().teachers["video"].model_dump(mode="json")}
    assert used_teachers(fewer("image", "clip")) == ["image", "video"]
    assert used_teachers(fewer("clip", "untrimmed")) == ["video"], "a 3D student takes windows, no frames"
    assert used_teachers(fewer("clip", teachers=video)) == ["video"]
    assert used_teachers(fewer(teachers={})) == []
    with pytest.raises(UserError, match=r"score\.image names the teacher 'image', teachers are: video; describe"):
        used_teachers(fewer("image", teachers=video))
    with pytest.raises(ValueError, match=r"score\.image names the teacher 'imgae'"):
        fewer("clip", teachers=video, score={"image": ["imgae"]})


def test_untrained_teachers_and_foreign_classes_are_named(tmp_path: Path, recipe: Recipe, workspace: Workspace) -> None:
    with pytest.raises(UserError, match="not trained yet"):
        load_teacher(recipe, Workspace(tmp_path), "image", CLASSES)
    with pytest.raises(UserError, match="does not know the class 'fly'"):
        load_teacher(recipe, workspace, "image", [*CLASSES, "fly"])


def test_files_from_elsewhere_score_like_the_networks_they_come_from(
    media: Path, tmp_path: Path, recipe: Recipe, workspace: Workspace
) -> None:
    foreign = {}
    for name, layout in (("image", "NCHW"), ("video", "NCTHW")):
        network, _ = load_checkpoint(workspace.run_dir(f"teacher-{name}") / "last.safetensors")
        use_plain_form(network)
        example = torch.zeros(2, 3, 1 if layout == "NCHW" else 4, 32, 32)
        traced = torch.jit.trace(network, example, check_trace=False)
        file = tmp_path / f"{name}.pt"
        if layout == "NCHW":
            pictures = torch.nn.Sequential(torch.nn.Unflatten(2, (1, 32)), traced)
            traced = torch.jit.trace(pictures, example[:, :, 0], check_trace=False)
        traced.save(file)
        foreign[f"{name}-file"] = {
            "file": str(file),
            "classes": ["winken", "jump"],  # the order of the checkpoint, one under another name
            "map": {"wave": ["winken"]},
            "layout": layout,
            "frames": 4,
            "stride": 2,
            "short_side": 40,
            "size": 32,
        }
    named = {
        unit: ["image-file" if unit in ("image", "frame") else "video-file"] for unit in ("image", "frame", "clip")
    }
    named["window"] = ["video-file"]
    theirs = a_recipe(media, foreign_teachers=foreign, score=named | {"segments": 3, "views": 2})
    other = a_workspace(tmp_path / "workspace", recipe)
    record = score(theirs, other, Engine(workers=1))
    rows, own = (read_table(place.table("scores")).to_pylist() for place in (other, workspace))
    assert len(rows) == len(own) and record.counts["failed"] == 0
    for ours, found in zip(own, rows, strict=True):
        assert found["teacher"] == ours["teacher"] + "-file" and found["unit"] == ours["unit"]
        np.testing.assert_allclose(found["probs"], ours["probs"], atol=1e-4)
    assert not score(theirs, other).fresh
    (tmp_path / "video.pt").unlink()
    with pytest.raises(UserError, match=r"video\.pt: cannot be read.*foreign_teachers\.video-file\.file"):
        score(theirs, other)


def test_held_out_target_samples_are_scored_like_web_samples(
    media: Path, tmp_path: Path, recipe: Recipe, workspace: Workspace
) -> None:
    listing = ["path,label,split"]
    for name in CLASSES:
        listing += [f"target/{name}/0.mp4,{name},train", f"target/{name}/1.mp4,{name},test"]
        listing += [f"clips/{name}/0.mp4,{name},val"]
    (media / "target.csv").write_text("\n".join(listing))
    sources = {name: source.model_dump() for name, source in recipe.sources.items()}
    sources["target"] |= {"path": "target.csv", "layout": "table", "test_share": 0.0}
    mine = a_recipe(media, sources=sources, select={"calibrate": {"temperature": True, "precision": 0.5}})
    other = a_workspace(tmp_path, mine)
    with pytest.raises(UserError, match="needs 'calibrate'"):
        score(mine, other, Engine(workers=1))
        select(mine, other)
    record = calibrate(mine, other, Engine(workers=1))
    assert not calibrate(mine, other).fresh
    rows = read_table(other.table("calibration")).to_pylist()
    samples = {row["sample_id"]: row for row in read_table(other.table("samples")).to_pylist()}
    own = {}
    for row in read_table(workspace.table("scores")).to_pylist():
        own[row["teacher"], row["unit"], row["sample_id"]] = row
    uris = {row["uri"]: row["sample_id"] for row in read_table(workspace.table("samples")).to_pylist()}
    kinds: dict[tuple[str, str], int] = {}
    for row in rows:
        sample = samples[row["sample_id"]]
        assert sample["split"] == "val" and row["status"] == "ok"
        assert row["query_prob"] == pytest.approx(row["probs"][CLASSES.index(sample["label"])])
        kinds[row["teacher"], row["unit"]] = kinds.get((row["teacher"], row["unit"]), 0) + 1
        if row["unit"] == "clip":
            twin = own["video", "clip", uris[sample["uri"]]]
            np.testing.assert_allclose(row["probs"], twin["probs"], atol=1e-4)
    assert kinds[("video", "clip")] == kinds[("video", "window")] == 2 and record.counts["samples"] == 2
    # three seconds at one frame a second
    assert kinds[("image", "image")] == kinds[("image", "frame")] == 2 * 3
    assert set(select(mine, other).counts["temperatures"]) == {"image", "video"}


def test_training_samples_are_judged_by_teachers_that_never_saw_them(media: Path, tmp_path: Path) -> None:
    mine = a_recipe(media, select={"calibrate": {"temperature": "matched", "split": "cross"}})
    place = a_workspace(tmp_path, mine)
    parts = target_parts(mine, place)
    assert [len(part) for part in parts] == [1, 1]
    with pytest.raises(UserError, match="needs 'train-teacher-image~0'"):
        calibrate(mine, place)
    for name in mine.teachers:
        network, meta = load_checkpoint(place.run_dir(f"teacher-{name}") / "last.safetensors")
        for number in range(len(parts)):
            torch.nn.init.constant_(network.head.weight, 0.0)
            # Its certainty tells which judge it was: the classes here are `wave`, `jump`.
            network.head.bias.data = torch.tensor([0.0, 1.0 + number])
            save_checkpoint(place.run_dir(f"teacher-{name}~{number}") / "last.safetensors", network, meta)
            place.run_stage(f"train-teacher-{name}~{number}", settings={}, after=[], outputs=[], work=lambda _: {})
    record = calibrate(mine, place, Engine(workers=1))
    rows = read_table(place.table("calibration")).to_pylist()
    assert record.counts == {"samples": 2, "rows": len(rows), "split": "cross"}
    assert {(row["teacher"], row["unit"]) for row in rows} == {
        ("image", "frame"), ("image", "image"), ("video", "clip"), ("video", "window")
    }  # fmt: skip
    for row in rows:
        part = next(number for number, names in enumerate(parts) if row["sample_id"] in names)
        assert row["probs"][0] == pytest.approx(1 / (1 + np.exp(-1.0 - part)), abs=1e-5)


def test_a_target_without_held_out_samples_is_named(tmp_path: Path, recipe: Recipe, workspace: Workspace) -> None:
    with pytest.raises(UserError, match="none is in the split 'val'"):
        calibrate(recipe, workspace)


def test_a_teacher_scores_with_its_own_threads(
    recipe: Recipe, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int | None] = []

    def noted(*_: Any, threads: int | None, **__: Any) -> list[Any]:
        given.append(threads)
        return []

    monkeypatch.setitem(score_samples.__globals__, "infer", noted)
    for threads in (None, 3):
        teachers = {"image": recipe.teachers["image"].model_copy(update={"threads": threads})}
        teacher = load_teacher(recipe.model_copy(update={"teachers": teachers}), workspace, "image", CLASSES)
        assert list(score_samples(recipe, teacher, ["image"], [])) == []
    assert given == [None, 3]
