"""The training form: same frames, same times, key frames where they are wanted."""

import av
import numpy as np
import pytest
from odd_media import FPS, cut, make_video, numbered_frame, numbers
from PIL import Image

from omnisource.media import (
    Limits,
    MediaError,
    decode_frames,
    decode_image,
    iter_frames,
    prepare_image,
    prepare_video,
    probe_media,
)


@pytest.mark.parametrize("gop", [1, 8])
def test_a_video_keeps_its_frames_and_times(tmp_path, gop):
    times = [0, 1, 2, 3, *range(10, 40), 60, 61]
    original = make_video(tmp_path / "a.mkv", len(times), times=times, size=(320, 180), options={"bf": "3"})
    made = prepare_video(original, tmp_path / "out" / "a.mp4", short_side=90, gop=gop)
    target = tmp_path / "out" / "a.mp4"
    assert (made.width, made.height, made.num_frames) == (160, 90, len(times))
    assert made.bytes == target.stat().st_size
    assert numbers(decode_frames(target, range(len(times)))) == list(range(len(times)))
    assert [round(t * FPS) for t, _ in iter_frames(target)] == times
    with av.open(str(target)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert [place for place, is_key in enumerate(keys) if is_key] == list(range(0, len(times), gop))
    wanted = [7, 8, 17, 35]
    assert numbers(decode_frames(target, wanted, keys_only=True)) == [index // gop * gop for index in wanted]
    assert [path.name for path in target.parent.iterdir()] == ["a.mp4"]
    facts = probe_media(target, thorough=True)
    assert (facts.codec, facts.decodable_share, facts.num_frames) == ("h264", 1.0, len(times))


def test_pixels_stay_close(tmp_path):
    original = make_video(tmp_path / "a.mp4", 20, size=(320, 180), options={"qp": "4"})
    prepare_video(original, tmp_path / "b.mp4", short_side=180, gop=8)
    before, after = (decode_frames(tmp_path / name, range(20)).astype(int) for name in ("a.mp4", "b.mp4"))
    error = ((before - after) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 32, "PSNR in dB"


def test_it_is_upright(tmp_path):
    original = make_video(tmp_path / "a.mp4", 4, size=(320, 180), rotate=90)
    prepare_video(original, tmp_path / "b.mp4", short_side=90, gop=2)
    facts = probe_media(tmp_path / "b.mp4")
    assert (facts.width, facts.height, facts.rotation) == (90, 160, 0)
    before, after = (decode_frames(tmp_path / name, [2], short_side=90)[0].astype(int) for name in ("a.mp4", "b.mp4"))
    assert np.abs(before - after).mean() < 8


def test_odd_sizes_become_even(tmp_path):
    frames = [Image.fromarray(numbered_frame(number, 161, 91)) for number in range(6)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=120)
    made = prepare_video(tmp_path / "a.gif", tmp_path / "b.mp4", short_side=91, gop=4)
    assert (made.width, made.height, made.num_frames) == (160, 90, 6)
    assert numbers(decode_frames(tmp_path / "b.mp4", range(6))) == list(range(6))
    assert [round(t, 2) for t, _ in iter_frames(tmp_path / "b.mp4")] == [0.0, 0.12, 0.24, 0.36, 0.48, 0.6]


def test_images(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(numbered_frame(5, 400, 300)).save(tmp_path / "a.png", exif=exif)
    made = prepare_image(tmp_path / "a.png", tmp_path / "x" / "a.jpg", short_side=120)
    assert (made.width, made.height, made.num_frames) == (120, 160, 1)
    before, after = decode_image(tmp_path / "a.png", short_side=120), decode_image(tmp_path / "x" / "a.jpg")
    assert before.shape == after.shape and np.abs(before.astype(int) - after).mean() < 4


def test_what_fails_leaves_nothing_behind(tmp_path):
    broken = cut(make_video(tmp_path / "whole.mp4", 20), tmp_path / "broken.mp4", 0, 0.5)
    damaged = make_video(tmp_path / "damaged.mkv", 20, codec="mjpeg", pixel_format="yuvj420p")
    damaged.write_bytes(damaged.read_bytes()[:400] + bytes(20_000))
    for path, limits in (
        (broken, Limits()),
        (damaged, Limits()),
        (tmp_path / "none.mp4", Limits()),
        (tmp_path / "whole.mp4", Limits(max_pixels=100)),
    ):
        with pytest.raises(MediaError):
            prepare_video(path, tmp_path / "out" / "a.mp4", short_side=64, gop=8, limits=limits)
        with pytest.raises(MediaError):
            prepare_image(path, tmp_path / "out" / "a.jpg", short_side=64, limits=limits)
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
