"""What is wrong with the target's own files is said, and counted in the record of `probe`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from court import film

from omnisource.curate import probe
from omnisource.ingest import ingest
from omnisource.media import write_video
from omnisource.recipe import Recipe
from omnisource.workspace import open_workspace


def written(path: Path, seed: int, scale: float = 1.0, crf: int = 18, skip: int = 0) -> Path:
    """The film of a seed; as a copy that somebody scaled and encoded again, or cut."""
    shown = film(seed)
    frames = [cv2.resize(frame, None, fx=scale, fy=scale) for frame in shown.frames.clip(0, 255).astype(np.uint8)]
    pictures = np.repeat(np.array(frames)[skip:, ..., None], 3, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, zip(shown.times[: len(pictures)].tolist(), pictures, strict=True), options={"crf": str(crf)})
    return path


def faults(root: Path, rows: Iterable[str] | None = None) -> dict[str, Any]:
    """What the record of `probe` counts of a target of folders, or of a list of path, label, split and group."""
    if rows is not None:
        (root / "list.csv").write_text("\n".join(["path,label,split,group", *rows]))
    networks = {"network": {"name": "tsn_r18"}}
    given = Recipe.model_validate(
        {
            "name": "moves",
            "data": str(root),
            "classes": ["jump", "wave"],
            "sources": {"target": {"role": "target", "path": "target" if rows is None else "list.csv"}},
            "teachers": {"video": networks},
            "student": networks,
        }
    )
    with open_workspace(root / "ws") as workspace:
        ingest(given, workspace)
        return dict(probe(given, workspace).counts)


def heard(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_groups_on_two_sides_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        written(tmp_path / f"{number}.mp4", number)
    films = ["jump,train,x", "wave,train,y", "jump,test,x", "wave,test,", "jump,val,y", "wave,test,z"]
    counts = faults(tmp_path, [f"{number}.mp4,{film}" for number, film in enumerate(films)])
    assert counts["of_groups_in_two_splits"] == 2
    assert "in_two_splits" not in counts and "copies_in_two_splits" not in counts
    first = f"first {tmp_path}/2.mp4 and {tmp_path}/0.mp4 of 'x'"
    said = heard(capsys)
    assert f"note: 2 test or val samples are of groups that are also trained on, {first}; leave them out" in said


def test_files_on_two_sides_or_of_no_use_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "target"
    one = written(target / "train/jump/1.mp4", 1)
    written(target / "test/jump/4.mp4", 2)
    for copy in ("test/jump/3.mp4", "test/wave/1.mp4"):
        (target / copy).parent.mkdir(exist_ok=True)
        (target / copy).write_bytes(one.read_bytes())
    written(target / "test/wave/5.mp4", 3)
    (target / "train/wave").mkdir()
    for number in range(6):
        (target / f"train/wave/page{number}.mp4").write_text("<html>")
    counts = faults(tmp_path)
    assert (counts["in_two_splits"], counts["with_two_labels"], counts["dropped"]) == (2, 1, 6)
    assert "copies_in_two_splits" not in counts
    said = heard(capsys)
    assert f"2 test or val samples are files that are also trained on, first {target}/test/jump/3.mp4 and {one}" in said
    assert f"1 target samples are files that have another label, too, first {target}/test/wave/1.mp4 and" in said
    assert f"left out (not_media): {target}/train/wave/page4.mp4" in said and "page5" not in said
    assert "left out: 6 target samples in all" in said and "no training file of wave is of use" in said


def test_copies_on_two_sides_are_told_from_films_of_one_court(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(12):  # all on one court, so that single frames look alike
        written(tmp_path / f"{seed}.mp4", seed)
    copied = written(tmp_path / "copied.mp4", 9, scale=2.0, crf=30)
    written(tmp_path / "too.mp4", 10, crf=26)
    written(tmp_path / "cut.mp4", 11, skip=8)  # no longer as long
    written(tmp_path / "beside.mp4", 1, crf=26)  # on the same side
    rows = [f"{seed}.mp4,{'jump' if seed % 2 else 'wave'},{'test' if seed > 7 else 'train'}," for seed in range(12)]
    rows += ["copied.mp4,jump,train,", "too.mp4,wave,train,", "cut.mp4,jump,train,", "beside.mp4,jump,train,"]
    counts = faults(tmp_path, rows)
    assert counts["copies_in_two_splits"] == 2 and "in_two_splits" not in counts
    first = f"first {copied} and {tmp_path}/9.mp4; leave them out of one split"
    assert f"note: 2 training clips are copies of test or val clips, {first}" in heard(capsys)
