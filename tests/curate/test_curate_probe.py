"""The probe stage: a row with a status for every sample, whatever its file is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from omnisource.curate import engine, probe
from omnisource.ingest import ingest
from omnisource.recipe import Recipe
from omnisource.tables import read_table
from omnisource.workspace import StageRecord, open_workspace


def write_video(path: Path, frames: int = 12, sound_only: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        if sound_only:
            stream = out.add_stream("aac", rate=16000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            pictures = [frame] * 8
        else:
            stream = out.add_stream("libx264", rate=10, options={"preset": "ultrafast", "g": "4"})
            stream.width, stream.height = 64, 48
            rng = np.random.default_rng(len(path.name) + frames)
            pictures = [av.VideoFrame.from_ndarray(rng.integers(0, 256, (48, 64, 3), np.uint8)) for _ in range(frames)]
        for picture in [*pictures, None]:
            for packet in stream.encode(picture):
                out.mux(packet)
    return path


def write_image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((40, 30), value).save(path, "JPEG")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of target clips, and web folders with every kind of trouble."""
    for label in ("jump", "wave"):
        for number in range(3):
            write_video(tmp_path / "target" / label / f"{number}.mp4", 10 + number)
    images, clips = tmp_path / "images" / "jump", tmp_path / "clips" / "wave"
    for number in range(3):
        write_image(images / f"{number} ünï\n.jpg", 20 + number)
    write_video(clips / "good.mp4")
    write_video(clips / "really-a-video.mp4").rename(images / "video.jpg")
    write_image(clips / "really-an-image.mp4", 50)
    write_video(clips / "sound.mp4", sound_only=True)
    (clips / "empty.mp4").touch()
    (clips / "page.mp4").write_text("<html>gone</html>")
    (clips / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    cut = write_video(clips / "cut.mp4", 60)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return tmp_path


def recipe(data: Path, **changes: Any) -> Recipe:
    networks = {"image": {"network": {"name": "tsn_r18"}}, "video": {"network": {"name": "slowonly_r18"}}}
    return Recipe.model_validate(
        {
            "name": "t",
            "data": data,
            "sources": {
                "target": {"role": "target", "path": "target", "test_share": 0.3},
                "images": {"role": "web", "format": "image", "path": "images"},
                "clips": {"role": "web", "format": "clip", "path": "clips"},
            },
            "teachers": networks,
            "student": networks["video"],
            **changes,
        }
    )


def run(data: Path, **changes: Any) -> tuple[StageRecord, dict[str, dict[str, Any]]]:
    """The stage's record, and its rows by file name."""
    with open_workspace(data / "ws") as workspace:
        ingest(recipe(data), workspace)
        record = probe(recipe(data, **changes), workspace)
        names = dict(
            zip(*(read_table(workspace.table("samples"))[c].to_pylist() for c in ("sample_id", "uri")), strict=True)
        )
        rows = read_table(workspace.table("probe")).to_pylist()
    return record, {Path(names[row["sample_id"]]).name: row for row in rows if row["sample_id"] in names}


def test_every_sample_has_a_row_with_a_status(data: Path) -> None:
    record, rows = run(data)
    with open_workspace(data / "ws") as workspace:
        samples = read_table(workspace.table("samples"))
        table = read_table(workspace.table("probe"))
    assert sorted(table["sample_id"].to_pylist()) == sorted(samples["sample_id"].to_pylist())
    reasons = {name: row["reason"] for name, row in rows.items() if row["status"] == "dropped"}
    assert reasons == {
        "video.jpg": "wrong_kind",
        "really-an-image.mp4": "wrong_kind",
        "sound.mp4": "no_video",
        "empty.mp4": "empty",
        "page.mp4": "not_media",
        "noise.mp4": "not_media",
        "cut.mp4": "corrupt",
    }
    assert all(rows[name]["message"] and "\n" not in rows[name]["message"] for name in reasons)
    assert record.counts["dropped"] == 7 and record.counts["reasons"]["wrong_kind"] == 2
    good = rows["good.mp4"]
    assert (good["width"], good["height"], good["num_frames"], good["codec"]) == (64, 48, 12, "h264")
    assert len(good["sha256"]) == 64 and len(good["phash"]) == 16
    # What is known about a dropped file is kept too.
    assert 0.2 < rows["cut.mp4"]["decodable_share"] < 0.8 and rows["cut.mp4"]["first_bad_s"] > 0


def test_the_decodable_share_asked_for_is_a_setting(data: Path) -> None:
    for thorough in (False, True):
        _, rows = run(data, probe={"min_decodable_share": 0.2, "thorough": thorough})
        assert rows["cut.mp4"]["status"] == "ok"


def test_limits_are_settings(data: Path) -> None:
    _, rows = run(data, probe={"limits": {"max_pixels": 1000}})
    assert rows["good.mp4"]["reason"] == "too_many_pixels"
    assert {row["status"] for row in rows.values()} == {"dropped"}


def test_again_there_is_nothing_to_do(data: Path) -> None:
    assert run(data)[0].fresh
    assert not run(data)[0].fresh
    assert run(data, probe={"thorough": True})[0].fresh


def test_samples_that_share_a_file_have_equal_facts(data: Path) -> None:
    pieces = data / "pieces.csv"
    lines = [f"target/jump/1.mp4,jump,{start},{start + 0.3}" for start in (0.0, 0.3, 0.6)]
    pieces.write_text("\n".join(["path,label,start_s,end_s", *lines, "target/wave/0.mp4,wave,0,1"]) + "\n")
    changed = recipe(data).model_dump(mode="json")
    changed["sources"]["target"] |= {"path": "pieces.csv", "test_share": 0.0, "split": "train"}
    changed["sources"]["target"]["columns"] = {"start_s": "start_s", "end_s": "end_s"}
    changed["sources"]["test"] = {"role": "target", "path": "target", "split": "test"}
    with open_workspace(data / "ws") as workspace:
        loaded = Recipe.model_validate(changed)
        ingest(loaded, workspace)
        probe(loaded, workspace)
        samples = read_table(workspace.table("samples")).filter(pc.field("source") == "target")
        rows = {row["sample_id"]: row for row in read_table(workspace.table("probe")).to_pylist()}
    assert samples.num_rows == 4
    assert len({rows[key]["sha256"] for key in samples["sample_id"].to_pylist()}) == 2


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_curate_probe import run
import omnisource.tables.journal
omnisource.tables.journal._PART_ROWS = 1
run(Path({data!r}))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_stage_goes_on_where_it_stopped(data: Path, how: signal.Signals) -> None:
    for number in range(150):
        write_image(data / "images" / "wave" / f"{number}.jpg", number + 1)
    script = SCRIPT.format(tests=str(Path(__file__).parent), data=str(data))
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    parts = data / "ws" / "partial" / "probe"
    until = time.monotonic() + 60
    while len(list(parts.glob("*.parquet"))) < 10:
        assert child.poll() is None and time.monotonic() < until, "the stage did not get under way"
        time.sleep(0.005)
    child.send_signal(how)
    assert child.wait(20) != 0
    before = {path: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert 10 <= len(before) < 160 and not (data / "ws" / "tables" / "probe.parquet").exists()
    with open_workspace(data / "ws") as workspace:
        probe(recipe(data), workspace)
        resumed = read_table(workspace.table("probe"))
        workspace.table("probe").unlink()
        probe(recipe(data), workspace)
        assert read_table(workspace.table("probe")).equals(resumed)
        assert resumed.num_rows == read_table(workspace.table("samples")).num_rows
    assert not parts.exists()


def test_what_an_actor_gives_is_one_value_that_ray_cannot_divide() -> None:
    rows = pa.table({"sample_id": ["a", "a", "b"], "feature": pa.array([[1.0], None, [2.0]], pa.list_(pa.float16()))})
    given = engine._Actor(lambda: lambda table: table, ())(rows)
    assert given.num_rows == 1 and engine._unpacked(given["table"][0].as_py()).equals(rows)
