"""What a still camera films is one picture; what moves before it tells its films apart."""

from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from omnisource.curate import dedupe, probe
from omnisource.curate.motion import MOTION, likeness
from omnisource.curate.samples import Sample
from omnisource.ingest import ingest
from omnisource.media import DEFAULT_LIMITS
from omnisource.recipe import Recipe
from omnisource.tables import read_table
from omnisource.workspace import open_workspace

U8 = npt.NDArray[np.uint8]


def film(seed: int, frames: int = 40) -> U8:
    """(T, 120, 160, 3): one court, on which a player walks as `seed` says."""
    court = cv2.resize(np.random.default_rng(7).integers(0, 255, (6, 8, 3), np.uint8), (160, 120))
    rng = np.random.default_rng(seed)
    start, speed = rng.uniform(40, 110, 2), rng.uniform(-1.5, 1.5, 2)
    pictures = np.repeat(court[None], frames, 0)
    for t, picture in enumerate(pictures):
        x, y = np.clip(start + t * speed, 8, 110).astype(int)
        cv2.rectangle(picture, (x, y), (x + 7, y + 14), (250, 250, 250) if seed % 2 else (5, 5, 5), -1)
    return pictures


@pytest.mark.parametrize(
    ("piece", "length", "looked_at"),
    [
        ((None, None), (2000, 200.0), (0.0, 37, 562)),  # a minute of 600 frames, in the middle of eighths
        ((None, None), (2000, None), (0.0, 37, 562)),
        ((None, None), (80, 8.0), (0.0, 5, 75)),
        ((50.0, 58.0), (2000, 200.0), (50.0, 5, 75)),
        ((50.0, None), (2000, 200.0), (50.0, 37, 562)),
    ],
)
def test_a_minute_of_a_video_is_looked_at(
    piece: tuple[float | None, float | None], length: tuple[int, float | None], looked_at: tuple[float, int, int]
) -> None:
    sample = Sample("a", "web", "clip", "a.mp4", None, *piece, 64, 48, 10.0, False, *length)
    part = MOTION.ask(sample, DEFAULT_LIMITS)
    assert (part.start_s, part.clips[0, 0], part.clips[0, -1]) == looked_at and part.clips.shape == (1, 8)


def write(path: Path, pictures: U8, crf: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = pictures.shape[2], pictures.shape[1], "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))))
        container.mux(stream.encode())


def grey(pictures: U8) -> U8:
    return np.stack([cv2.resize(p, (32, 32), interpolation=cv2.INTER_AREA) for p in pictures[2::5].mean(-1)]).astype(
        np.uint8
    )


def test_motion_tells_films_of_one_place_apart() -> None:
    one, other = grey(film(1)), grey(film(2))
    noisy = np.clip(one + np.random.default_rng(0).normal(0, 1.5, one.shape), 0, 255).astype(np.uint8)
    assert likeness(one, noisy) > 0.8
    assert likeness(one, other) < 0.3
    noisy[-1] = 0  # it ends in black
    assert likeness(one, noisy) > 0.8
    still = np.repeat(one[:1], len(one), 0)
    assert likeness(still, still ^ 1) == pytest.approx(1)
    assert likeness(one, still) < 0.5


def test_of_films_by_one_still_camera_only_the_copy_goes(tmp_path: Path) -> None:
    web = tmp_path / "web" / "walk"
    for seed in (1, 2, 3):
        write(web / f"{seed}.mp4", film(seed))
    write(web / "copy.mp4", np.stack([cv2.resize(p, (80, 60), interpolation=cv2.INTER_AREA) for p in film(1)]), 28)
    (tmp_path / "target.csv").write_text(
        "path,label,split\nweb/walk/1.mp4,walk,train\nweb/walk/2.mp4,run,train\nweb/walk/3.mp4,run,test\n"
    )
    training = {"network": {"name": "tsn_r18"}}
    recipe = Recipe.model_validate(
        {
            "name": "still",
            "data": tmp_path,
            "sources": {
                "target": {"role": "target", "path": "target.csv"},
                "web": {"role": "web", "format": "clip", "path": "web"},
            },
            "teachers": {"image": training, "video": training},
            "student": training,
            "dedupe": {"against_test": False, "phash_distance": 12},
        }
    )
    with open_workspace(tmp_path / "workspace") as workspace:
        for stage in (ingest, probe, dedupe):
            stage(recipe, workspace)
        names = {row["sample_id"]: Path(row["uri"]).name for row in read_table(workspace.table("samples")).to_pylist()}
        rows = read_table(workspace.table("duplicates")).to_pylist()
    dropped = {names[row["sample_id"]]: (row["rule"], names[row["twin_id"]]) for row in rows if row["status"] != "ok"}
    assert dropped == {"copy.mp4": ("phash", "1.mp4")}
