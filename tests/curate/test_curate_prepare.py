"""The prepare stage: one training form per content, referenced by a table."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_curate_probe import recipe, write_image, write_video

from omnisource.curate import prepare, probe
from omnisource.errors import UserError
from omnisource.ingest import ingest
from omnisource.media import Failure, IsolatedPool, Reason, decode_frames, partial_of, probe_media
from omnisource.tables import read_table
from omnisource.workspace import StageRecord, open_workspace


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for label in ("jump", "wave"):
        for number in range(2):
            write_video(tmp_path / "target" / label / f"{number}.mp4", 10 + number)
    write_image(tmp_path / "images" / "jump" / "a.jpg", 40)
    twin = write_video(tmp_path / "clips" / "wave" / "a.mp4", 20)
    (twin.parent / "twin.mp4").write_bytes(twin.read_bytes())
    (twin.parent / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(2000))
    return tmp_path


def run(data: Path, **changes: Any) -> tuple[StageRecord, dict[str, dict[str, Any]]]:
    """The stage's record, and its rows by the name of the original."""
    with open_workspace(data / "ws") as workspace:
        loaded = recipe(data, prepare={"short_side": 32, "gop": 4, **changes})
        ingest(loaded, workspace)
        probe(loaded, workspace)
        record = prepare(loaded, workspace)
        samples = read_table(workspace.table("samples")).to_pylist()
        rows = {row["sample_id"]: row for row in read_table(workspace.table("prepared")).to_pylist()}
    return record, {Path(s["uri"]).name: rows[s["sample_id"]] for s in samples if s["sample_id"] in rows}


def test_every_good_sample_has_a_training_form(data: Path) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    record, rows = run(data)
    assert record.fresh and record.counts["rows"] == 7 and record.counts["dropped"] == 0
    assert "broken.mp4" not in rows  # it did not pass the probe
    video, image = rows["a.mp4"], rows["a.jpg"]
    assert (video["gop"], video["num_frames"], video["width"], video["height"]) == (4, 20, 42, 32)
    assert (image["gop"], image["num_frames"], image["width"], image["height"]) == (None, 1, 40, 30)  # never enlarged
    assert rows["twin.mp4"]["uri"] == video["uri"] and record.counts["files"] == 4  # equal content once
    facts = probe_media(video["uri"])
    assert (facts.num_frames, facts.width, facts.bytes) == (20, 42, video["bytes"])
    original = decode_frames(data / "clips" / "wave" / "a.mp4", [4], short_side=32)[0, :, :42].astype(int)
    assert np.abs(decode_frames(video["uri"], [4], keys_only=True)[0] - original).mean() < 12
    assert all(path.read_bytes() == content for path, content in before.items())


def test_nothing_is_enlarged(data: Path) -> None:
    _, rows = run(data, short_side=500)
    assert (rows["a.mp4"]["width"], rows["a.mp4"]["height"]) == (64, 48)
    assert (rows["a.jpg"]["width"], rows["a.jpg"]["height"]) == (40, 30)


def test_again_and_with_another_form(data: Path) -> None:
    _, rows = run(data)
    assert not run(data)[0].fresh
    changed, other = run(data, gop=2)
    assert changed.fresh and other["a.mp4"]["uri"] != rows["a.mp4"]["uri"]
    assert Path(other["a.mp4"]["uri"]).exists() and not Path(rows["a.mp4"]["uri"]).exists()


def test_the_gop_is_the_students_stride_unless_given(data: Path) -> None:
    _, rows = run(data, gop=None)
    assert rows["a.mp4"]["gop"] == 8


def test_a_file_that_fails_leaves_nothing_half_written(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(pool: IsolatedPool, do: object, jobs: Iterable[Any]) -> Iterator[tuple[Any, Failure]]:
        for job in jobs:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            partial_of(job.target).touch()
            yield job, Failure(Reason.TIMEOUT, "")

    with open_workspace(data / "ws") as workspace:
        ingest(recipe(data), workspace)
        probe(recipe(data), workspace)
        monkeypatch.setattr(IsolatedPool, "map", killed)
        assert prepare(recipe(data), workspace).counts["dropped"] == 7
        assert not [path for path in workspace.media_dir("prepared").rglob("*") if path.is_file()]


def test_a_full_disk_is_no_fault_of_a_file(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_workspace(data / "ws") as workspace:
        ingest(recipe(data), workspace)
        probe(recipe(data), workspace)
        with monkeypatch.context() as full:
            full.setattr(IsolatedPool, "map", lambda _, do, jobs: ((j, Failure(Reason.NO_SPACE, "")) for j in jobs))
            with pytest.raises(UserError, match="is full; free some space"):
                prepare(recipe(data), workspace)
