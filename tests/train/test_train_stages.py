"""A recipe's trainings, on real media in all formats."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from train_small import Small

from omnisource.clips import Camera, load_camera
from omnisource.clips.camera import Gaussian, save_camera
from omnisource.curate import prepare
from omnisource.errors import UserError
from omnisource.networks import Meta, create, load_checkpoint, save_checkpoint
from omnisource.train import build_pool, train, train_student, train_teacher
from omnisource.train.begin import identity_of
from omnisource.train.record import differences


def test_teachers_and_students_train_and_are_trained_once(small: Small) -> None:
    teacher = train_teacher(small.recipe, small.workspace, "image")
    assert teacher.fresh and teacher.counts["units"] == {"clips": 16}
    student = train_student(small.recipe, small.workspace, "all", 0)
    assert student.counts["units"] == {"clips": 16, "images": 12, "shorts": 9, "films": 9}
    assert student.counts["batch"] == {"target": 4, "images": 2, "shorts": 2, "films": 2}
    network, meta = load_checkpoint(small.workspace.run_dir("all-0") / "last.safetensors")
    assert meta.classes == ("left", "right", "still") and network.name == "slowonly_r18"
    rows = [json.loads(line) for line in (small.workspace.run_dir("all-0") / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert set(rows[-1]["sources"]) == {"clips", "images", "shorts", "films"}
    assert not train_student(small.recipe, small.workspace, "all", 0).fresh


def test_a_student_trains_under_a_fitted_camera(small: Small, tmp_path: Path) -> None:
    """`camera.mode: homography`: images become moving clips, the same whoever decodes them."""
    pan = Gaussian(np.tile([0.05, 0.02], 4), 1e-4 * np.eye(8), 100)
    save_camera(tmp_path / "camera.json", Camera(2, pan), {})
    logs, moving = {}, {"camera__mode": "homography", "camera__fitted": str(tmp_path / "camera.json")}
    for workers, changes in ((0, moving), (2, moving), (0, {})):
        recipe = small.with_student(epochs=1, workers=workers, **changes)
        record = train_student(recipe, small.workspace, "all", 2)
        assert record.fresh == (workers == 0) and record.counts["steps"] == 4
        run = small.workspace.run_dir("all-2")
        if workers:
            pool = build_pool(recipe, small.workspace, list(recipe.sources), by_frame=False)
            run = tmp_path / "workers"
            train(recipe.student, pool, run, 2, camera=load_camera(tmp_path / "camera.json"))
        logs[workers, bool(changes)] = (run / "log.jsonl").read_bytes()
    assert logs[0, True] == logs[2, True] != logs[0, False]


def test_another_file_of_the_same_name_is_another_start(small: Small, tmp_path: Path) -> None:
    """Weights and cameras decide by what they hold; where they lie changes nothing."""
    weights, moved = tmp_path / "weights.safetensors", tmp_path / "moved.safetensors"

    def drawn(seed: int) -> None:
        torch.manual_seed(seed)
        save_checkpoint(weights, create("slowonly_r18", 3, base_width=8), Meta())

    def trained(path: Path) -> bool:
        recipe = small.with_student(network__init={"checkpoint": str(path)}, epochs=0.25)
        return train_student(recipe, small.workspace, "target-only", 0).fresh

    drawn(0)
    assert trained(weights) and not trained(weights)
    drawn(1)
    assert trained(weights)
    assert not trained(weights.rename(moved))

    pool = build_pool(small.recipe, small.workspace, ["clips"], by_frame=False)
    pans = [Camera(2, Gaussian(np.tile([shift, 0.0], 4), 1e-4 * np.eye(8), 100)) for shift in (0.1, 0.2)]
    one, other = (identity_of(small.recipe.student, pool, 0, pan) for pan in pans)
    assert differences(one, other) == [f'camera: "{pans[0].identity}" -> "{pans[1].identity}"']


def test_a_student_trains_on_prepared_media(small: Small) -> None:
    recipe = small.with_student(input__prepared=True)
    with pytest.raises(UserError, match="omnisource prepare"):
        train_student(recipe, small.workspace, "all", 1)
    prepare(recipe, small.workspace)
    pool = build_pool(recipe, small.workspace, list(recipe.sources), by_frame=False, prepared=True)
    folder = small.workspace.media_dir("prepared")
    assert all(Path(pool.unit(number).uri).is_relative_to(folder) for number in range(len(pool)))
    student = train_student(recipe, small.workspace, "all", 1)
    assert student.counts["units"] == {"clips": 16, "images": 12, "shorts": 9, "films": 9}
    coarse = recipe.model_copy(update={"prepare": recipe.prepare.model_copy(update={"crf": 40})})
    prepare(coarse, small.workspace)  # other pixels: a run on them is another run
    assert build_pool(coarse, small.workspace, list(recipe.sources), False, prepared=True).digest != pool.digest
