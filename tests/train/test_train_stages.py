"""A recipe's trainings, on real media in all formats."""

import json
from pathlib import Path

import pytest
from train_small import Small

from omnisource.curate import prepare
from omnisource.errors import UserError
from omnisource.networks import load_checkpoint
from omnisource.train import build_pool, train_student, train_teacher


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


def test_a_student_trains_on_prepared_media(small: Small) -> None:
    recipe = small.with_student(input__prepared=True)
    with pytest.raises(UserError, match="omnisource prepare"):
        train_student(recipe, small.workspace, "all", 1)
    prepare(recipe, small.workspace)
    pool = build_pool(recipe, small.workspace, list(recipe.sources), spatial=False, prepared=True)
    folder = small.workspace.media_dir("prepared")
    assert all(Path(pool.unit(number).uri).is_relative_to(folder) for number in range(len(pool)))
    student = train_student(recipe, small.workspace, "all", 1)
    assert student.counts["units"] == {"clips": 16, "images": 12, "shorts": 9, "films": 9}
