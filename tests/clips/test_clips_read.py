"""From files to pixels: the right frames, the right part of them, decoded once."""

import io
import pickle
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from omnisource.clips import (
    Box,
    centre,
    dense_test,
    random_resized_crop,
    read_clip,
    read_moving,
    read_times,
    read_views,
    rng,
)
from omnisource.media import Limits, MediaError, Reason, decode_frames

WIDTH, HEIGHT, FRAMES, FPS = 120, 80, 40, 10


def picture(index: int) -> np.ndarray:
    """Frame `index`: grey level by time, red rising to the right, blue rising downwards."""
    frame = np.full((HEIGHT, WIDTH, 3), index * 5 + 20, np.uint8)
    frame[..., 0] = np.linspace(0, 255, WIDTH).astype(np.uint8)
    frame[..., 2] = np.linspace(0, 255, HEIGHT).astype(np.uint8)[:, None]
    return frame


def number(frame: np.ndarray) -> int:
    """Which frame of the film this is, from its green level."""
    return round((float(np.median(frame[..., 1])) - 20) / 5)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "8", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("still") / "still.png"
    Image.fromarray(picture(7)).save(path)
    return path


def fixed(box: Box) -> Callable[[int, int], Box]:
    return lambda width, height: box


def test_frames_come_in_the_asked_order_and_from_the_asked_piece(film: Path) -> None:
    clip = read_clip(film, [30, 2, 2, 17], centre(80), 40)
    assert clip.shape == (4, 40, 40, 3) and clip.dtype == np.uint8
    assert [number(frame) for frame in clip] == [30, 2, 2, 17]
    piece = read_clip(film, np.array([0, 4, 99]), centre(80), 40, start_s=1.0, end_s=2.0)
    assert [number(frame) for frame in piece] == [10, 14, 19]


def test_the_box_is_what_is_seen(film: Path) -> None:
    box = Box(30, 20, 90, 70)
    whole = decode_frames(film, [5])[0]
    clip = read_clip(film, [5], fixed(box), 60)[0].astype(int)
    expected = cv2.resize(whole[20:70, 30:90], (60, 60), interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(clip - expected).max() <= 1
    mirrored = read_clip(film, [5], fixed(Box(30, 20, 90, 70, mirrored=True)), 60)[0].astype(int)
    assert np.abs(mirrored - clip[:, ::-1]).max() <= 1


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    clip = read_clip(tmp_path / "stripes.png", [0], centre(256), 64)
    assert np.abs(clip.astype(int) - 127).max() <= 2


def test_an_image_is_a_clip_of_one_frame(still: Path) -> None:
    clip = read_clip(still, [0], centre(80), 80)
    assert clip.shape == (1, 80, 80, 3)
    assert np.array_equal(clip[0], picture(7)[:, 20:100])


def test_a_random_crop_repeats_with_its_key_and_travels_to_workers(film: Path) -> None:
    crops = [
        pickle.loads(pickle.dumps(crop))  # noqa: S301
        for crop in (centre(32), partial(random_resized_crop, min_area=0.3, rng=rng(5)))
    ]
    again = partial(random_resized_crop, min_area=0.3, rng=rng(5))
    assert read_clip(film, [1], crops[0], 32).shape == (1, 32, 32, 3)
    assert np.array_equal(read_clip(film, [1, 9], crops[1], 32), read_clip(film, [1, 9], again, 32))


def test_times_give_the_first_frame_at_or_after_each(film: Path) -> None:
    clip = read_times(film, [0.5, 2.55, 0.5, 3.9], centre(80), 40)
    assert [number(frame) for frame in clip] == [5, 26, 5, 39]


def test_a_video_that_changes_its_size_gives_snippets_of_one_size(tmp_path: Path) -> None:
    path = tmp_path / "changing.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj444p"
        for index in range(FRAMES):
            # Every JPEG brings its own size, whatever the container says.
            jpeg = io.BytesIO()
            scale = 1 if index < FRAMES // 2 else 2
            Image.fromarray(picture(index)).resize((WIDTH // scale, HEIGHT // scale)).save(jpeg, "JPEG", quality=95)
            packet = av.Packet(jpeg.getvalue())
            packet.stream, packet.pts, packet.dts = stream, index, index
            packet.time_base, packet.is_keyframe = Fraction(1, FPS), True
            container.mux(packet)
    clip = read_times(path, [0.5, 3.0], centre(80), 40)
    assert clip.shape == (2, 40, 40, 3)
    assert [number(frame) for frame in clip] == [5, 30]
    assert np.abs(clip[0, ..., 0].astype(int) - clip[1, ..., 0]).mean() < 8  # the same part of the picture
    assert read_clip(path, [5, 30], centre(80), 40).shape == (2, 40, 40, 3)


@pytest.mark.parametrize("crops", [1, 3, 5, 10])
def test_views_are_the_crops_of_the_clips(film: Path, crops: int) -> None:
    clips = dense_test(FRAMES, 4, 5, 3)
    views = read_views(film, clips, crops=crops, size=48, short_side=64)
    assert views.shape == (3 * crops, 4, 48, 48, 3)
    assert [number(frame) for frame in views[::crops].reshape(-1, 48, 48, 3)] == clips.ravel().tolist()
    if crops == 3:
        red = views[0::3, ..., 0].mean(), views[1::3, ..., 0].mean(), views[2::3, ..., 0].mean()
        assert red[0] + 40 < red[2] < red[1] - 40  # left, right, centre
    if crops == 10:
        assert np.array_equal(views[0, :, :, ::-1], views[1])
        flow = read_views(film, clips, crops=crops, size=48, short_side=64, flow=True)
        assert np.array_equal(flow[0::2], views[0::2]) and np.array_equal(flow[1::2, ..., 1:], views[1::2, ..., 1:])
        assert np.array_equal(flow[1::2, ..., 0], 255 - views[1::2, ..., 0])


def test_views_of_a_small_frame_are_enlarged(tmp_path: Path) -> None:
    Image.fromarray(picture(0)[:20, :10]).save(tmp_path / "small.png")
    views = read_views(tmp_path / "small.png", np.zeros((1, 2), int), crops=3, size=32, short_side=16)
    assert views.shape == (3, 2, 32, 32, 3)


def test_bad_media_says_why(tmp_path: Path) -> None:
    (tmp_path / "page.mp4").write_text("<html>not found</html>")
    with pytest.raises(MediaError):
        read_clip(tmp_path / "page.mp4", [0], centre(32), 32)


def test_every_way_of_reading_keeps_the_limits(film: Path, still: Path) -> None:
    small = Limits(max_pixels=WIDTH * HEIGHT - 1)
    reads: list[Callable[[], object]] = [
        lambda: read_clip(film, [0], centre(32), 32, limits=small),
        lambda: read_times(film, [0.0], centre(32), 32, limits=small),
        lambda: read_moving(still, np.eye(3)[None], centre(32), 32, limits=small),
        lambda: read_views(film, np.zeros((1, 1), int), crops=1, size=32, short_side=40, limits=small),
    ]
    for read in reads:
        with pytest.raises(MediaError) as error:
            read()
        assert error.value.reason is Reason.TOO_MANY_PIXELS
