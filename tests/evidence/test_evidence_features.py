"""A student on a fixed trunk is tested on kept features: they must say what the test stage says of the files."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from omnisource.curate import probe
from omnisource.evaluate.predictions import read_predictions
from omnisource.evaluate.test import test_run as run_test
from omnisource.evidence.features import test_on_features as on_features
from omnisource.ingest import ingest
from omnisource.media import write_video
from omnisource.networks import Meta, create, load_checkpoint, save_checkpoint
from omnisource.recipe import Recipe
from omnisource.train import train_student
from omnisource.workspace import open_workspace


def film(path: Path, label: int, number: int) -> None:
    """Noise that moves to the left or to the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ground = np.random.default_rng(number).integers(0, 255, (40, 56, 3), np.uint8)
    frames = ((n / 8, np.roll(ground, n * (2 * label - 1), axis=1)) for n in range(14))
    write_video(path, frames, options={"crf": "24", "preset": "ultrafast"})


@pytest.mark.parametrize(("name", "views"), [("tsn_r18", 1), ("slowonly_r18", 2)])
def test_features_say_what_the_test_stage_says(name: str, views: int, tmp_path: Path) -> None:
    rows = []
    for number in range(12):
        label, path = number % 2, f"clips/{number}.mp4"
        film(tmp_path / path, label, number)
        rows.append({"path": path, "label": ("left", "right")[label], "fold": number // 2 % 2})
    with (tmp_path / "target.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    start = create(name, 2, base_width=8)
    save_checkpoint(tmp_path / "start.safetensors", start, Meta())
    init = {"checkpoint": str(tmp_path / "start.safetensors")}
    student = {
        "network": {"name": name, "init": init, "options": {"base_width": 8}},
        "input": {"frames": 4, "stride": 2, "short_side": 40, "size": 32},
        "epochs": 2,
        "batch": {"target": 4},
        "optimiser": {"trunk_lr_scale": 0},
        "trunk_views": 2,
        "workers": 0,
    }
    given = {
        "name": "few",
        "data": str(tmp_path),
        "sources": {"target": {"role": "target", "path": "target.csv", "test": {"fold": 1}}},
        "teachers": {"image": student, "video": student},
        "student": student,
        "test": {"clips": 2, "crops": 3},
        "runs": {"alone": {"sources": ["target"]}},
    }
    recipe = Recipe.model_validate(given)
    with open_workspace(tmp_path / "work") as workspace:
        ingest(recipe, workspace)
        probe(recipe, workspace)
        train_student(recipe, workspace, "alone", 0)
        counts = run_test(recipe, workspace, "alone", 0).counts
        checkpoint = workspace.run_dir("alone-0") / "last.safetensors"
        found = on_features(recipe, workspace, checkpoint)
        assert found == pytest.approx((counts["top1"], counts["mean_class"], 6))
        (kept,) = (workspace.root / "views").glob("*.npz")
        told = read_predictions(workspace.table("predictions-alone-0"))
        # Another trunk, though the recipe names the same file: what the first one saw is not taken for its.
        other = create(name, 2, base_width=8)
        save_checkpoint(tmp_path / "other.safetensors", other, Meta())
        on_features(recipe, workspace, tmp_path / "other.safetensors")
        assert len(list((workspace.root / "views").glob("*.npz"))) == 2
    features = torch.from_numpy(np.load(kept)["features"])
    assert features.shape[:2] == (6, 3 * views), "crops of each clip of a 3D network, of one view of a 2D one"
    network, _ = load_checkpoint(checkpoint)
    with torch.no_grad():
        probs = network.head(features).softmax(2).mean(1)
    np.testing.assert_allclose(sorted(probs.tolist()), sorted(told.probs.tolist()), atol=1e-5)
