"""The miniature world on disk: counts, truth, copies, damage, determinism."""

import csv
import hashlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from omnisource.demo import CLASSES, OFF_TOPIC, World, WorldSize, make_world
from omnisource.demo.files import read_video
from omnisource.errors import UserError

SMALL = WorldSize(
    train_clips=2, test_clips=2, train_scenes=2, test_scenes=3, images=60, clips=30, untrimmed=4, width=96, height=72,
    clip_seconds=1.2, untrimmed_seconds=(9.0, 12.0),
)  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digests(root: Path) -> dict[str, str]:
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("demo") / "world", size=SMALL, seed=3, workers=1)


def test_the_lists_name_every_file_and_no_other(world: World) -> None:
    lists = (world.target_csv, world.images_csv, world.clips_csv, world.untrimmed_csv)
    named = [row["path"] for path in lists for row in rows(path)]
    on_disk = [str(path.relative_to(world.root)) for path in world.root.glob("*/*/*")]
    assert sorted(named) == sorted(on_disk)
    assert world.classes_txt.read_text().splitlines() == list(CLASSES)
    assert len(rows(world.images_csv)) == 60
    assert len(rows(world.clips_csv)) == 30
    assert len(rows(world.untrimmed_csv)) == 4


def test_the_target_is_balanced_and_its_splits_share_no_scene(world: World) -> None:
    target = rows(world.target_csv)
    assert Counter((row["label"], row["split"]) for row in target) == {
        (name, split): 2 for name in CLASSES for split in ("train", "test")
    }
    train, test = ({row["scene"] for row in target if row["split"] == split} for split in ("train", "test"))
    assert not train & test
    assert (len(train), len(test)) == (2, 3)


def test_the_web_has_every_fault_and_the_lists_do_not_tell(world: World) -> None:
    truth = rows(world.truth_csv)
    images = [row for row in truth if row["source"] == "images"]
    assert sum(bool(row["broken"]) for row in images) == 2
    assert sum(bool(row["near_duplicate_of"]) for row in images) == 3
    assert sum(bool(row["exact_duplicate_of"]) for row in images) == 2
    fresh = [row for row in images if not (row["broken"] or row["near_duplicate_of"] or row["exact_duplicate_of"])]
    assert sum(row["truth"] == OFF_TOPIC for row in fresh) == 8
    assert sum(row["truth"] not in (OFF_TOPIC, row["query"]) for row in fresh) == 17
    assert set(rows(world.images_csv)[0]) == {"path", "query"}
    queries = Counter(row["query"] for row in images)
    assert max(queries.values()) >= 2 * min(queries.values())


def test_exact_duplicates_are_equal_and_near_duplicates_show_the_test_clip(world: World) -> None:
    near = [row for row in rows(world.truth_csv) if row["near_duplicate_of"]]
    tests = {row["path"]: row["scene"] for row in rows(world.target_csv) if row["split"] == "test"}
    assert near and {row["near_duplicate_of"] for row in near} <= set(tests)
    for row in rows(world.truth_csv):
        if row["exact_duplicate_of"]:
            twin = world.root / row["exact_duplicate_of"]
            assert (world.root / row["path"]).read_bytes() == twin.read_bytes()
        if row["near_duplicate_of"] and row["source"] == "images":
            picture = small(np.asarray(Image.open(world.root / row["path"]).convert("RGB")))
            frames, _ = read_video(world.root / row["near_duplicate_of"])
            twin_distance = min(distance(picture, small(frame)) for frame in frames)
            elsewhere = [path for path, scene in tests.items() if scene != tests[row["near_duplicate_of"]]]
            other = min(distance(picture, small(read_video(world.root / path)[0][0])) for path in elsewhere)
            assert twin_distance < other


def small(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((16, 12), Image.Resampling.BOX), dtype=float)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two small pictures, whichever way round they are held."""
    return min(float(np.abs(one - turned).mean()) for turned in (other, other[:, ::-1]))


def test_whole_files_decode_and_broken_ones_do_not(world: World) -> None:
    for row in rows(world.truth_csv):
        path = world.root / row["path"]
        if row["broken"]:
            with pytest.raises((OSError, av.error.FFmpegError, SyntaxError, IndexError)):
                read_video(path) if path.suffix == ".mp4" else Image.open(path).load()
        elif path.suffix == ".jpg":
            assert min(Image.open(path).size) >= 64 * SMALL.width // 160
        else:
            frames, fps = read_video(path)
            assert len(frames) / fps >= 0.7 * SMALL.clip_seconds


def test_segments_lie_within_their_videos(world: World) -> None:
    segments = rows(world.segments_csv)
    assert segments
    for path in {row["path"] for row in segments}:
        frames, fps = read_video(world.root / path)
        of_path = sorted((float(row["start_s"]), float(row["end_s"])) for row in segments if row["path"] == path)
        assert of_path[-1][1] <= len(frames) / fps + 1e-6
        assert all(end > start for start, end in of_path)
        assert all(one[1] <= other[0] for one, other in pairwise(of_path))
        assert sum(end - start for start, end in of_path) < len(frames) / fps - 2  # there is idle time


def test_same_seed_same_bytes_whatever_the_workers(world: World, tmp_path: Path) -> None:
    again = make_world(tmp_path / "again", size=SMALL, seed=3, workers=2)
    assert digests(again.root) == digests(world.root)


def test_another_seed_is_another_world(tmp_path: Path) -> None:
    tiny = WorldSize(1, 1, 1, 1, images=0, clips=1, untrimmed=0, width=64, height=48, clip_seconds=0.5)
    one, other = (make_world(tmp_path / str(seed), size=tiny, seed=seed, workers=1) for seed in (0, 1))
    videos = [name for name in digests(one.root) if name.startswith("target")]
    assert all(digests(one.root)[name] != digests(other.root)[name] for name in videos)


def test_a_finished_world_is_left_alone_and_nothing_else_is_overwritten(world: World, tmp_path: Path) -> None:
    before = digests(world.root)
    (world.root / "classes.txt").touch()
    assert make_world(world.root, size=SMALL, seed=3, workers=1) == world
    assert digests(world.root) == before
    with pytest.raises(UserError, match="holds something else"):
        make_world(world.root, size=SMALL, seed=4, workers=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds something else"):
        make_world(tmp_path / "full", size=SMALL, workers=1)
    with pytest.raises(UserError, match="is a file"):
        make_world(tmp_path / "full" / "letter.txt", size=SMALL, workers=1)
    with pytest.raises(UserError, match="cannot write"):
        make_world(tmp_path / "full" / "letter.txt" / "world", size=SMALL, workers=1)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("huge", "must be one of demo, large"),
        (WorldSize(train_clips=0), "train_clips is 0"),
        (WorldSize(images=-1), "images is -1"),
        (WorldSize(width=97), "must be even"),
    ],
)
def test_bad_sizes_are_refused(tmp_path: Path, size: str | WorldSize, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_world(tmp_path / "world", size=size)
    assert not (tmp_path / "world").exists()
