"""Evidence: cells are the ordinary stages, are kept, and amount to the right figures."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import film, table
from PIL import Image
from pydantic import create_model
from typer.testing import CliRunner

from omnisource.cli import app
from omnisource.demo import WorldSize
from omnisource.errors import UserError
from omnisource.evidence import (
    TRACKS,
    Cell,
    Variant,
    run_cells,
    summarise,
    track_of,
    variants_of,
    write_page,
    write_results,
)
from omnisource.evidence.cells import recipe_of
from omnisource.evidence.key import cell_key
from omnisource.evidence.page import BEGIN, END, forest, load_rows
from omnisource.evidence.variants import INFLATED
from omnisource.ingest import ingest
from omnisource.networks import is_spatial
from omnisource.recipe import Recipe
from omnisource.recipe.curation import Score
from omnisource.tables import read_table
from omnisource.workspace import Workspace, open_workspace

LABELS = ("backhand", "serve")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in the form of the tennis track: two of its classes, two folds."""
    root = tmp_path_factory.mktemp("data")
    tennis = root / "tennis"
    target, images, clips, long = [], [], [], []
    for label, name in enumerate(LABELS):
        for number in range(16):
            path = f"target/{name}{number}.mp4"
            film(tennis / path, label, 100 * label + number)
            target.append({"path": path, "label": name, "group": number, "fold": number % 2, "query": name}
                          | {"rank": (number // 2 % 4) / 4})  # fmt: skip
        for number in range(3):
            picture = np.random.default_rng(500 + 10 * label + number).integers(0, 90, (48, 64, 3), np.uint8)
            picture[..., label] += 120
            (tennis / "images").mkdir(exist_ok=True)
            Image.fromarray(picture).save(tennis / f"images/{name}{number}.png")
            images.append({"path": f"images/{name}{number}.png", "query": name, "oracle": name if number else "other"})
            film(tennis / f"clips/{name}{number}.mp4", label, 700 + 10 * label + number)
            clips.append({"path": f"clips/{name}{number}.mp4", "query": name, "oracle": name})
        film(tennis / f"untrimmed/{name}.mp4", label, 900 + label)
        long.append({"path": f"untrimmed/{name}.mp4", "query": name})
    for file, rows in (("target", target), ("images", images), ("clips", clips), ("untrimmed", long)):
        table(tennis / f"{file}.csv", rows)
    (root / "home").mkdir()
    videos = [{"video": f"{room}-{fold}", "layout": room, "fold": fold} for room in ("01", "02") for fold in range(4)]
    for video in videos:
        video["path"] = f"clips/{video['video']}.mp4"
        for path in (video["path"], f"untrimmed/{video['video']}.mp4"):
            film(root / "home" / str(path), 0, 0)
    table(root / "home/target.csv", [video | {"label": "walk"} for video in videos])
    (root / "weights").mkdir()
    (root / "weights/i3d_inception.safetensors").write_bytes(b"weights")  # what they hold is not looked at here
    return root


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracks of two classes and two folds, on a small input."""
    from omnisource.evidence import tracks

    def tiny() -> dict[str, object]:
        given = plain()
        given["input"] |= {"frames": 2, "short_side": 40, "size": 32}
        return given | {"batch": {"target": 4, "web_ratio": 1.0}, "epochs": 4, "trunk_views": 2, "workers": 0}

    plain = tracks.training
    monkeypatch.setattr(tracks, "training", tiny)
    monkeypatch.setattr(tracks, "_TENNIS", list(LABELS))


def test_cells_are_trained_once_and_survive(data: Path, tmp_path: Path, small: None) -> None:
    track = replace(track_of("tennis-30"), folds=(0, 1))
    first = track.recipe((data / "tennis").resolve(), tmp_path / "look", 0)
    assert first.web_sources == ["hidden", "images", "clips", "untrimmed"]
    wanted = ("target-only", "+hidden", "all", "unfiltered", "query as evidence, soft, all", "students as teachers")
    variants = [variant for variant in variants_of(first) if variant.name in wanted]
    assert [variant.name for variant in variants] == sorted(wanted, key=[v.name for v in variants_of(first)].index)
    cells = run_cells(track, data, tmp_path / "work", variants, [0, 1], [0])
    assert len(cells) == len(wanted) * 2
    assert all(0 <= cell.top1 <= 1 and cell.tested == 16 for cell in cells)
    unfiltered = next(cell for cell in cells if cell.variant == "unfiltered")
    assert unfiltered.web_units["images"] in (5, 6) and 0.6 <= unfiltered.precision["images"] <= 0.7
    assert unfiltered.precision["hidden"] == 1.0, "the hidden clips' queries are right here"
    assert len({cell.target_clips_seen for cell in cells}) == 1, "all see as many target clips"
    (other,) = run_cells(track, data, tmp_path / "work", variants[:1], [0], [1])
    assert other.fold == 1 and other.tested == 16
    left = [path for name in ("cell-*", "*first-*") for path in (tmp_path / "work").rglob(name)]
    assert not left, "a cell leaves its figures, not its checkpoint"
    # The same call finds them; another variant adds its own.
    kept = tmp_path / "work/tennis-30/fold-0/cells.jsonl"
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join(lines) + '\n{"track": "tenn')  # cut off by a kill
    assert run_cells(track, data, tmp_path / "work", variants, [0, 1], [0]) == cells
    assert len(kept.read_text().splitlines()) == len(lines) + 1


def test_a_held_out_split_is_calibrated_on(data: Path, tmp_path: Path, small: None) -> None:
    def sections(media: Path, place: Path, fold: int) -> dict[str, Any]:
        given = dict(track_of("tennis-val").sections(media, place, fold))
        given["sources"]["target"]["val"] = {"rank": {"below": 0.25}}  # these files have two folds, one is tested on
        return given

    track = replace(track_of("tennis-val"), sections=sections)
    base = track.recipe((data / "tennis").resolve(), tmp_path / "look", 0)
    name = "thresholds by class: 70 % of held-out samples right"
    precise = next(one for one in variants_of(base) if one.name == name)
    (cell,) = run_cells(track, data, tmp_path / "work", [precise], [0], [0])
    assert cell.tested == 16
    record = Workspace(tmp_path / "work/tennis-val/fold-0/workspace").record("calibrate")
    assert record is not None and record.counts["samples"] == 4


def test_what_cells_amount_to(tmp_path: Path) -> None:
    variants = [Variant("target-only", "q", ()), Variant("all", "q", ("web",))]
    variants.append(Variant("other", "r", ("web",), {}, "all"))

    def cell(variant: str, fold: int, seed: int, top1: float) -> Cell:
        return Cell("home", fold, variant, seed, "", top1, top1, 20, 100, {"web": 7}, {"web": 0.5}, {})

    cells = [cell("target-only", fold, seed, 0.4 + 0.1 * fold) for fold in (0, 1) for seed in (0, 1)]
    cells += [cell("all", fold, seed, 0.5 + 0.1 * fold + 0.02 * seed) for fold in (0, 1) for seed in (0, 1)]
    cells += [cell("other", fold, seed, 0.5 + 0.1 * fold) for fold in (0, 1) for seed in (0, 1)]
    base, joint, other = summarise(cells, variants)
    assert (base.top1, base.gain, base.against) == (pytest.approx(45.0), None, "")
    assert joint.gain == pytest.approx(11.0) and joint.by_fold == pytest.approx([11.0, 11.0])
    assert joint.gain_interval == pytest.approx((11 - 1.837, 11 + 1.837), abs=0.01)  # t(3) = 3.182, sd = 1.155
    assert joint.significant and joint.tested == 40 and joint.folds == 2 and joint.seeds == 2
    assert other.over_target == pytest.approx(10.0) and joint.over_target == joint.gain
    assert other.against == "all" and other.gain == pytest.approx(-1.0) and not other.significant
    assert [cell[:2] for cell in joint.cells] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [cell[2] for cell in joint.cells] == pytest.approx([50, 52, 60, 62])

    page = tmp_path / "docs/evidence.md"
    page.parent.mkdir()
    page.write_text(f"# Evidence\n\nOurs.\n\n{BEGIN}\nstale\n{END}\n\nReading.\n")
    results = write_results([base, joint, other], "omnisource bench effect --track home", tmp_path)
    write_page(tmp_path, page)
    text = page.read_text()
    assert text.startswith("# Evidence\n\nOurs.") and text.endswith("\n\nReading.\n") and "stale" not in text
    assert "| all | 56.0 | **+11.0** | +9.2 to +12.8; +11.0 to +11.0 |  |  |" in text
    assert "| other | 55.0 | **+10.0** | +10.0 to +10.0; +10.0 to +10.0 | -1.0 over all |" in text
    assert results.name == "effect-home.json" and load_rows(results)[0] == [base, joint, other]
    assert json.loads(results.read_text())["command"] == "omnisource bench effect --track home"
    drawn = ET.fromstring((tmp_path / "docs/images/evidence-home.svg").read_text())
    assert len(drawn.findall("{*}circle")) == 2 and forest([base]).startswith("<svg")
    scale = [text.text for text in drawn.findall("{*}text") if text.get("text-anchor") == "middle"]
    assert scale == ["0", "+5", "+10", "gain in points of top-1, 95 %"]


def test_a_page_is_of_all_tracks_that_were_run(tmp_path: Path) -> None:
    page = tmp_path / "evidence.md"
    for track, top1 in (("world", 0.5), ("home", 0.4)):
        cells = [Cell(track, 0, "target-only", 0, "", top1, top1, 20, 100, {}, {}, {})]
        write_results(summarise(cells, [Variant("target-only", "q", ())]), f"command of {track}", tmp_path)
    done = CliRunner().invoke(app, ["bench", "page", "--results", str(tmp_path), "--page", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert text.index("## home:") < text.index("| target-only | 40.0") < text.index("## world:"), "in the tracks' order"
    assert "`command of world`" in text and "| target-only | 50.0" in text


def test_judges_are_trained_once_for_all_cells_of_a_fold(
    data: Path, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnisource.evidence import cells

    asked = []

    def told(*given: Any) -> None:
        asked.append(given)
        judge(*given)

    judge = cells.train_all_judges
    monkeypatch.setattr(cells, "train_all_judges", told)
    track = track_of("tennis-full")
    base = track.recipe((data / "tennis").resolve(), tmp_path / "look", 0)
    crossed = [
        one for one in variants_of(base) if one.name.endswith((", matched temperature", "cross-fitted temperature"))
    ]
    assert len(crossed) == 2
    found = run_cells(track, data, tmp_path / "work", crossed, [0, 1], [0])
    assert len(found) == 4 and all(cell.tested == 16 for cell in found)
    runs = tmp_path / "work/tennis-full/fold-0/workspace/runs"
    assert len(asked) == 1 and {path.name.partition("~")[0] for path in runs.glob("*~*")} == {
        "teacher-image",
        "teacher-video",
    }


@pytest.fixture
def tiny_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """The track `world` with few small files, and networks that are trained for a step or two."""
    from omnisource.evidence import tracks

    def tiny() -> dict[str, Any]:
        given = plain()
        for part in (given["student"], *given["teachers"].values()):
            part["network"]["options"]["base_width"] = 8
            part["input"] |= {"short_side": 36, "size": 32}
            part["epochs"] = 1
        given["student"]["batch"] = {"target": 4, "web_ratio": 1.0}
        given["dedupe"]["against_test"] = False
        return given | {"select": {"rule": "all"}, "test": {"clips": 1, "crops": 1, "bootstrap": 0}}

    plain = tracks.demo
    size = WorldSize(
        train_clips=2, test_clips=1, train_scenes=2, test_scenes=2, images=16, clips=8, untrimmed=1, width=64,
        height=48, untrimmed_seconds=(9.0, 10.0),
    )  # fmt: skip
    monkeypatch.setattr(tracks, "demo", tiny)
    monkeypatch.setattr(tracks, "WORLD", size)


@pytest.mark.slow
def test_a_3d_student_on_a_drawn_world(tmp_path: Path, tiny_world: None) -> None:
    track = track_of("world")
    base = track.recipe(track.media(None, tmp_path, 1), tmp_path / "look", 1)
    wanted = ("+images", "still")
    variants = [variant for variant in variants_of(base) if variant.name in wanted]
    cells = run_cells(track, None, tmp_path, variants, [0], [1])
    assert sorted(cell.variant for cell in cells) == sorted(wanted)
    assert all(cell.tested == 8 and 0 <= cell.mean_class <= 1 for cell in cells)
    images = next(cell for cell in cells if cell.variant == "+images")
    assert images.web_units["images"] > 4 and 0 < images.precision["images"] < 1
    fold = tmp_path / "world/fold-1"
    assert (tmp_path / "world/world-1/target.csv").exists() and (fold / "workspace/camera.json").exists()
    assert not list(fold.rglob("*cell-*")), "a cell leaves its figures alone"
    # Side by side in processes they are the same to the bit.
    (fold / "cells.jsonl").unlink()
    assert run_cells(track, None, tmp_path, variants, [0], [1], jobs=2) == cells


def test_other_teachers_score_in_a_workspace_of_their_own(tmp_path: Path, tiny_world: None) -> None:
    track = track_of("world")
    base = track.recipe(track.media(None, tmp_path, 1), tmp_path / "look", 1)
    wanted = ("+clips", "2D and 3D teachers averaged", "2D and 3D teachers agree")
    variants = [variant for variant in variants_of(base) if variant.name in wanted]
    # With the rule `all` of the tiny world both keep everything, but where the teachers are divided.
    alone, averaged, agree = run_cells(track, None, tmp_path, variants, [0], [1])
    assert agree.web_units["clips"] < averaged.web_units["clips"] == alone.web_units["clips"]
    assert agree.web_units["images"] == averaged.web_units["images"], "one teacher scores images"
    fold = tmp_path / "world/fold-1"
    assert len(list(fold.glob("workspace*"))) == 2
    teachers = {place.name: set(read_table(place / "tables/scores.parquet")["teacher"].to_pylist())
                for place in fold.glob("workspace*")}  # fmt: skip
    assert all(found == {"image", "video"} for found in teachers.values())
    (fold / "cells.jsonl").unlink()
    assert run_cells(track, None, tmp_path, variants[:1], [0], [1]) == [alone], "the fold's own scores stay"


def test_a_3d_student_can_start_from_imagenet(data: Path, tmp_path: Path) -> None:
    start = ("slowonly_r18", tmp_path / "resnet18.pth")
    for name, there in (("home-3d", True), ("home", False)):
        track = track_of(name)
        base = track.recipe(track.media(data, tmp_path, 0), tmp_path / name, 0)
        more = variants_of(base, few=True, inflated=start)[len(variants_of(base, few=True)) :]
        assert [variant.name for variant in more] == (
            ["target-only, inflated from ImageNet", "all, inflated from ImageNet"] if there else []
        )
        for variant in more:
            student = recipe_of(base, variant).student
            assert student.network.name == "slowonly_r18" and student.network.init.imagenet == str(start[1])
            assert student.input == base.student.input and student.epochs == base.student.epochs / 4
            assert student.optimiser.lr == base.student.optimiser.lr / 10
        full = [variant for variant in variants_of(base, inflated=start) if variant.name.endswith(INFLATED)]
        assert [variant.against for variant in full] == (["target-only", more[0].name, more[1].name] if there else [])
        assert not there or recipe_of(base, full[-1]).select.query_evidence
    said = CliRunner().invoke(app, ["bench", "effect", "--inflated", "tsn_r18=x.pth", "--track", "world"]).exception
    assert isinstance(said, UserError) and "'tsn_r18' is no 3D network" in str(said)
    said = (
        CliRunner().invoke(app, ["bench", "effect", "--inflated", "slowonly_r18=x.pth", "--track", "world"]).exception
    )
    assert isinstance(said, UserError) and "no such file" in str(said)


def test_every_variant_is_a_valid_recipe(data: Path, tmp_path: Path) -> None:
    for track in TRACKS:
        base = track.recipe(track.media(data, tmp_path, 0), tmp_path / track.name, 0)
        assert base.student.trunk_views or not is_spatial(base.student.network.name)
        variants = variants_of(base)
        assert {variant.name for variant in variants_of(base, few=True)} < {variant.name for variant in variants}
        assert len({variant.name for variant in variants}) == len(variants)
        names = {variant.name for variant in variants}
        for variant in variants:
            assert variant.against in names
            recipe = recipe_of(base, variant)
            assert recipe.planned_runs()["cell"].sources == [*base.target_sources, *variant.sources]


def test_a_key_is_of_what_decides_a_cell(data: Path, tmp_path: Path) -> None:
    track, weights = track_of("tennis-full-3d"), tmp_path / "resnet18.pth"
    weights.write_bytes(b"weights")
    base = track.recipe(track.media(data, tmp_path, 0), tmp_path / "look", 0)

    def key(recipe: Recipe, **changes: Any) -> str:
        changed = {f"student.{name}": value for name, value in changes.items()}
        return cell_key(recipe_of(recipe, Variant("all", "q", tuple(recipe.web_sources), changed)), 0, False)

    plain = key(base)
    assert plain == key(base, ema=0.0)
    assert len({plain, key(base, ema=0.9), key(base.model_copy(update={"seed": 1}))}) == 3
    recipe = recipe_of(base, Variant("all", "q", ()))
    assert len({cell_key(recipe, seed, again) for seed in (0, 1) for again in (False, True)}) == 4
    # A version with one more setting: off, it changes nothing.
    wider = create_model("Wider", __base__=Score, more=(bool, False))
    later = create_model("Later", __base__=Recipe, score=(wider, wider()))
    values = recipe.model_dump(mode="json")
    assert cell_key(later.model_validate(values), 0, False) == cell_key(recipe, 0, False)
    values["score"]["more"] = True
    assert cell_key(later.model_validate(values), 0, False) != cell_key(recipe, 0, False)
    # Weights are known by content.
    first = key(base, **{"network.init": {"imagenet": str(weights)}})
    moved = weights.with_name("other.pth")
    weights.rename(moved)
    assert key(base, **{"network.init": {"imagenet": str(moved)}}) == first
    moved.write_bytes(b"other weights")
    assert key(base, **{"network.init": {"imagenet": str(moved)}}) not in (first, plain)
    with pytest.raises(UserError, match=r"resnet18.pth: cannot be read .*; mend student.network.init.imagenet"):
        key(base, **{"network.init": {"imagenet": str(weights)}})


@pytest.mark.parametrize("name", ["home", "home-moved"])
def test_no_video_at_home_is_tested_and_learned_from(name: str, data: Path, tmp_path: Path) -> None:
    track, tested = track_of(name), []
    for fold in track.folds:
        recipe = track.recipe(track.media(data, tmp_path, fold), tmp_path / str(fold), fold)
        recipe = recipe.model_copy(update={"unlabelled_classes": "allow"})
        with open_workspace(tmp_path / f"{fold}/work") as workspace:
            ingest(recipe, workspace)
            rows = read_table(workspace.table("samples")).to_pylist()
        films = {role: {Path(row["uri"]).stem for row in rows if role in (row["source"], row["split"])}
                 for role in ("train", "test", "untrimmed")}  # fmt: skip
        assert films["train"] - films["untrimmed"] and films["untrimmed"] and films["test"]
        assert not films["test"] & (films["train"] | films["untrimmed"])
        if name == "home-moved":
            rooms = {role: {video[:2] for video in names} for role, names in films.items()}
            assert rooms["test"] == rooms["untrimmed"] and len(rooms["test"]) == 1
        tested += films["test"]
    assert len(tested) == len(set(tested)) == 8


def test_a_variant_that_is_not_there_is_named(data: Path, tmp_path: Path) -> None:
    given = ["bench", "effect", "--data", str(data), "--workspace", str(tmp_path / "w"), "--track", "tennis-full"]
    done = CliRunner().invoke(app, [*given, "--only", "everything"])
    assert isinstance(done.exception, UserError)
    assert "--only everything: no such variant of tennis-full; variants are: target-only;" in str(done.exception)


def test_the_questions_fit_the_student(data: Path, tmp_path: Path) -> None:
    def names(name: str) -> set[str]:
        track = track_of(name)
        return {one.name for one in variants_of(track.recipe(track.media(data, tmp_path, 0), tmp_path / name, 0))}

    flat, deep, world = names("tennis-30"), names("tennis-30-3d"), names("world")
    assert {"positives only", "mean consensus"} <= flat and not {"still", "homography-per-class"} & flat
    assert {"still", "translate-random", "translate-constant", "homography-per-class"} <= deep & world
    assert not {"positives only", "mean consensus", "homography"} & (deep | world)
    held_out = names("tennis-val") - names("tennis-full")
    assert len(held_out) == 3 and all("held-out" in name or "fitted" in name for name in held_out)
    assert "agree, t = 0.3" in world - flat, "it is what tennis starts from"


@pytest.mark.parametrize(
    ("name", "alone", "clips", "everything"),
    [
        ("tennis-30", "70.6 (2D)", "+1.4 (2D)", "+3.0 (2D)"),
        ("tennis-30-3d", "72.9 (3D, scratch)", "+2.9 (3D, scratch)", "+3.9 (3D, scratch)"),
        ("tennis-30-video", "82.6 (3D, IG-65M)", "", "+1.0 (3D, IG-65M)"),
    ],
)
def test_the_papers_figures_are_of_such_a_student(
    name: str, alone: str, clips: str, everything: str, data: Path, tmp_path: Path
) -> None:
    track = track_of(name)
    base = track.recipe(track.media(data, tmp_path, 0), tmp_path / name, 0)
    paper = {one.name: one.paper for one in variants_of(base, few=True)}
    assert (paper["target-only"], paper["+hidden"], paper["+clips"], paper["all"]) == (alone, clips, clips, everything)


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tennis").mkdir()
    with pytest.raises(
        UserError, match=r"track tennis-30-video: .*weights/i3d_inception\.safetensors is missing \(docs"
    ):
        track_of("tennis-30-video").media(tmp_path, tmp_path, 0)
    monkeypatch.setattr("omnisource.evidence.TRACKS", [track_of("tennis-30-video")])
    given = ["--data", str(tmp_path), "--results", str(tmp_path / "r"), "--page", str(tmp_path / "page.md")]
    done = CliRunner().invoke(app, ["bench", "effect", *given, "--workspace", str(tmp_path / "w")])
    assert done.exit_code == 0
    assert "tennis-30-video: left out, as DATA/weights/i3d_inception.safetensors is missing" in done.output


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="track home: --data is missing; it names the folder that holds home/"):
        track_of("home").media(None, tmp_path, 0)
    with pytest.raises(UserError, match="tracks are: tennis-full"):
        track_of("golf")
    with pytest.raises(UserError, match="--data names the folder that holds tennis/"):
        run_cells(track_of("tennis-full"), tmp_path, tmp_path / "w", [Variant("target-only", "q", ())], [0], [0])
