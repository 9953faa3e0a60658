"""Every shipped recipe loads, ingests data laid out as it says, and builds its networks; reduced in size, it trains.

The data are made here: a few tiny files a class, in the folders and lists that the recipes name.
"""

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omnisource import evaluate
from omnisource.clips import fit_camera_stage
from omnisource.curate import dedupe, probe, score, select
from omnisource.flow import compute_flow
from omnisource.ingest import ingest
from omnisource.media import write_video
from omnisource.networks import Meta, create, is_spatial, save_checkpoint
from omnisource.recipe import Recipe, load_recipe
from omnisource.train import train_student, train_teacher
from omnisource.workspace import open_workspace

RECIPES = Path(__file__).parents[1] / "recipes"
PUBLISHED = sorted(path for path in RECIPES.glob("*/*.yaml"))
CLASSES = ["abseiling", "archery", "yoga"]
# One of each kind of network and data walks the whole way in the ordinary tests, the others in `make test-all`.
QUICK = {"slowonly_r101_8x8_scratch", "flow-ucf101", "tsn_r50_8seg"}


def seeded(path: Path) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(path.name.encode()))


def film(path: Path, frames: int = 10) -> None:
    random = seeded(path)
    # Sharp corners, so that the moving camera finds points to follow.
    small = random.integers(0, 255, (12, 16, 3), np.uint8)
    ground = np.asarray(Image.fromarray(small).resize((128, 96), Image.Resampling.NEAREST))
    pictures = ((n / 10, np.roll(ground, 2 * n, axis=1)) for n in range(frames))
    write_video(path, pictures, options={"crf": "20", "preset": "ultrafast"})


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = seeded(path).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC).save(path)


def kinetics(folder: Path, lists: dict[str, str], roots: dict[str, Path]) -> None:
    """Kinetics lists and files ID_START_END.mp4; the last listed clip of each split is not there."""
    for split, name in lists.items():
        rows = ["label,youtube_id,time_start,time_end,split"]
        for label in CLASSES:
            for n in range(3 if split == "train" else 2):
                video = f"{split}{label[:3]}{n}"
                rows.append(f"{label},{video},10,20,{split}")
                film(roots[split] / f"{video}_000010_000020.mp4")
        rows.append(f"{CLASSES[0]},gone{split},0,10,{split}")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    k400, mini = root / "kinetics400", root / "minikinetics"
    kinetics(k400, {"train": "train.csv", "val": "val.csv"}, {"train": k400 / "train", "val": k400 / "val"})
    videos = mini / "videos"
    kinetics(mini, {"train": "train_k200.csv", "val": "val_k200.csv"}, {"train": videos, "val": videos})
    for label in CLASSES:
        for n in range(2):
            for source in ("google", "instagram"):
                photo(root / "web" / source / label / f"{source}{label}{n}.jpg")
            film(root / "web" / "instagram_clips" / label / f"clip{label}{n}.mp4")
            film(root / "web" / "untrimmed" / label / f"long{label}{n}.mp4", frames=30)
    release(root / "release")
    ucf101(root / "ucf101")
    hmdb51(root / "hmdb51")
    for split, count in (("train", 3), ("test", 2)):
        for label in CLASSES:
            for n in range(count):
                film(root / "youtube_car" / split / label / f"car{split}{label}{n}.mp4")
    return root


def release(root: Path) -> None:
    """The lists and folders of the released web data: `path label` lines, and JSON with positive 10 s parts."""
    lists = root / "annotations"
    lists.mkdir(parents=True)
    (lists / "k200_actions.txt").write_text("\n".join(CLASSES) + "\n")
    for source, suffix, teacher in (
        ("googleimage_200", "jpg", "tsn_8seg"),
        ("insimage_200", "jpg", "tsn_8seg"),
        ("insvideo_200", "mp4", "slowonly_8x8"),
    ):
        lines = [f"{label}/{source}{label}{n}.{suffix} {c}" for c, label in enumerate(CLASSES) for n in range(2)]
        for line in lines:
            (photo if suffix == "jpg" else film)(root / source / line.split()[0])
        path = lists / source / f"{teacher}_{source}_wodup.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    rows = []
    for c, label in enumerate(CLASSES):
        for part in (0, 2):
            film(root / "kinetics_raw_200_train" / f"{label}/raw{label}" / f"part_{part}.mp4")
        rows.append({"filename": f"{label}/raw{label}", "label": c, "num_clips": 4, "positive_clip_inds": [0, 2]})
    path = lists / "kinetics_raw_200" / "slowonly_8x8_kinetics_raw_200.json"
    path.parent.mkdir()
    path.write_text(json.dumps(rows))


def ucf101(root: Path) -> None:
    (root / "splits").mkdir(parents=True)
    for fold in (1, 2, 3):
        train, test = [], []
        for c, label in enumerate(["Archery", "Basketball", "YoYo"], start=1):
            for group in range(1, 5):
                name = f"{label}/v_{label}_g{group:02d}_c01.avi"
                if fold == 1:
                    film(root / "videos" / name)
                (test if group == fold else train).append((name, c))
        (root / "splits" / f"trainlist0{fold}.txt").write_text("".join(f"{name} {c}\n" for name, c in train))
        (root / "splits" / f"testlist0{fold}.txt").write_text("".join(f"{name}\n" for name, _ in test))


def hmdb51(root: Path) -> None:
    (root / "splits").mkdir(parents=True)
    for label in ("brush_hair", "cartwheel", "wave"):
        for fold in (1, 2, 3):
            rows = []
            for n in range(5):
                if fold == 1:
                    film(root / "videos" / label / f"{label}{n}.avi")
                rows.append(f"{label}{n}.avi {2 if n == fold else 0 if n == 4 else 1} ")
            (root / "splits" / f"{label}_test_split{fold}.txt").write_text("\n".join(rows) + "\n")


def reduced(path: Path, data: Path) -> Recipe:
    """The recipe with tiny networks and inputs, and one run: the last that starts from no file, else the last."""
    recipe = load_recipe(path, [f"data={data}"])
    runs = recipe.planned_runs()
    plain = [name for name, run in runs.items() if not any("init" in key for key in run.set)]
    name = (plain or list(runs))[-1]
    changed = recipe.model_dump(mode="json")
    for training in (changed["student"], *changed["teachers"].values()):
        network, given = training["network"], training["input"]
        network["init"] = {}
        if re.search(r"_r\d+$", network["name"]):  # a residual network
            network["options"]["base_width"] = 8
        if not is_spatial(network["name"]):
            given.update(frames=8 if network["name"].startswith(("i3d", "ir")) else 4, stride=1)
        given.update(short_side=40, size=32)
        training["batch"].update(target=4, ratio={}, web_ratio=0.5)
        training["optimiser"].update(lr=0.001, warmup_epochs=0)
        training.update(epochs=1, workers=1, threads=1)
        training["camera"].update(pairs=60)
    changed["score"].update(window_s=1.0, hop_s=1.0, segments=2)
    changed["select"].update(rule="all")
    changed["dedupe"].update(against_test=False, phash_distance=None)
    changed["flow"].update(method="dis", workers=1)
    changed["test"].update(clips=2, crops=1, size=None, bootstrap=10)
    changed["runs"] = {name: runs[name].model_dump(mode="json")}
    for setting in list(changed["runs"][name]["set"]):
        if setting.startswith(("epochs", "batch")):
            del changed["runs"][name]["set"][setting]
    return Recipe.model_validate(changed)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_loads_and_finds_its_data(path: Path, data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path, [f"data={data}"])
    with torch.device("meta"):
        for run in recipe.planned_runs():
            student = recipe.student_of(run)
            channels = 2 if student.input.modality == "flow" else 3
            create(student.network.name, 10, in_channels=channels, **student.network.options)
        for teacher in recipe.teachers.values():
            create(teacher.network.name, 10, **teacher.network.options)
    with open_workspace(tmp_path / "w") as workspace:
        counts = ingest(recipe, workspace).counts
    assert len(counts["classes"]) == 3
    usable = {(row["source"], row["split"]) for row in counts["sources"] if row["status"] == "ok"}
    assert {source for source, _ in usable} == set(recipe.sources)
    assert {"train", "test"} <= {split for _, split in usable}


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_schedules_and_shares_are_the_papers(path: Path) -> None:
    recipe = load_recipe(path)
    for name, run in recipe.planned_runs().items():
        student = recipe.student_of(name)
        optimiser, start, network = student.optimiser, student.network.init, student.network.name
        schedule = (student.epochs, optimiser.schedule, optimiser.steps, optimiser.warmup_epochs)
        if network.startswith("tsn_"):
            assert schedule == (100, "step", [40, 80], 0), name
        elif network.startswith("slowonly_") and start.imagenet:
            assert schedule == (150, "step", [90, 130], 10), name
            assert optimiser.lr == 0.01
        elif network.startswith("slowonly_") and not start.checkpoint:
            assert schedule == (196 if "r101" in network else 256, "cosine", [], 0), name
            assert optimiser.lr == 0.1
        shares: dict[str, float] = {}
        for source in set(run.sources) & set(recipe.web_sources):
            kind = "images" if source in ("google", "instagram") else source
            shares[kind] = shares.get(kind, 0) + student.batch.ratio.get(source, student.batch.web_ratio)
        if len(shares) == 3:  # 2:1:1:1; of TSN's images 64 beside twice 12 videos
            images = 64 / 24 if network.startswith("tsn_") else 0.5
            assert shares == {"images": pytest.approx(images, abs=0.01), "instagram_clips": 0.5, "untrimmed": 0.5}
        elif len(shares) == 1 and path.stem != "batch_ratio":
            (share,) = shares.values()
            assert share == pytest.approx(64 / 12 if "images" in shares and network.startswith("tsn_") else 1, abs=0.1)


def test_every_recipe_says_what_was_published_and_how_to_run_it() -> None:
    results = (RECIPES.parent / "docs" / "results.md").read_text()
    for path in PUBLISHED:
        name = str(path.relative_to(RECIPES.parent))
        head = path.read_text().split("\nname:")[0]
        assert f"omnisource run {name} " in head
        assert re.search("[Pp]ublished|no figure", head)
        assert name in results, f"docs/results.md does not tell what became of {name}"


def ids(path: Path) -> str:
    return f"{path.stem}-{path.parent.name}" if path.stem in ("rgb", "flow", "slowonly_r50") else path.stem


def walks() -> Iterator[object]:
    for path in PUBLISHED:
        yield pytest.param(path, id=ids(path), marks=() if ids(path) in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("path", walks())
def test_a_recipe_walks_the_whole_way_at_reduced_size(path: Path, data: Path, tmp_path: Path) -> None:
    recipe = reduced(path, data)
    (run,) = recipe.planned_runs()
    for setting, value in recipe.planned_runs()[run].set.items():
        if setting.startswith("network.init"):
            network = create(recipe.student.network.name, 3, **recipe.student.network.options)
            save_checkpoint(recipe.resolve(str(value)), network, Meta())
    with open_workspace(tmp_path / "w") as workspace:
        ingest(recipe, workspace)
        probe(recipe, workspace)
        if recipe.student.input.modality == "flow":
            compute_flow(recipe, workspace)
        if recipe.web_sources:
            dedupe(recipe, workspace)
            for teacher in recipe.teachers:
                train_teacher(recipe, workspace, teacher)
            score(recipe, workspace)
            kept = select(recipe, workspace)
            assert kept.fresh
            if not is_spatial(recipe.student.network.name):
                fit_camera_stage(recipe, workspace)
        trained = train_student(recipe, workspace, run, recipe.seeds[0])
        assert trained.fresh
        tested = evaluate.test_run(recipe, workspace, run, recipe.seeds[0])
        assert tested.counts["samples"] == tested.counts["listed"] > 0
        assert 0 <= tested.counts["top1"] <= 1
