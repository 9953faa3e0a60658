"""Frame-exact decoding, in every container and codec that the web has."""

import gc
import os

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_media import FPS, cut, make_video, numbers, overwrite, remux
from PIL import Image

from omnisource.media import Limits, MediaError, Reason, decode_frames, iter_frames, probe_media

FAST = {"preset": "ultrafast"}
B_FRAMES = {"preset": "veryfast", "bf": "3"}
OPEN_GOP = {"preset": "veryfast", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}

# name, arguments of make_video
FORMATS = {
    "h264.mp4": {"options": B_FRAMES},
    "h264-open-gop.mkv": {"options": OPEN_GOP},
    "h264-long-gop.mp4": {"options": B_FRAMES, "gop": 250},
    "h264-key-only.mp4": {"gop": 1},
    "h264-fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264-10bit.mp4": {"pixel_format": "yuv420p10le"},
    "h264-444.mp4": {"pixel_format": "yuv444p"},
    "h264-sound.mp4": {"options": B_FRAMES, "sound": True},
    "h264.mov": {"options": B_FRAMES},
    "h264.ts": {"options": B_FRAMES},
    "h264.flv": {"options": B_FRAMES},
    "h264.avi": {"options": B_FRAMES},
    "flv1.flv": {"codec": "flv"},
    "hevc.mp4": {"codec": "libx265"},
    "hevc-10bit.mkv": {"codec": "libx265", "pixel_format": "yuv420p10le"},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "logo=0"}},
    "av1.webm": {"codec": "libsvtav1", "options": {"preset": "12"}},
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "auto-alt-ref": "1", "lag-in-frames": "10"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "wmv2.wmv": {"codec": "wmv2"},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "gif.gif": {"codec": "gif", "pixel_format": "rgb8"},
}


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """All formats, 50 frames each."""
    folder = tmp_path_factory.mktemp("formats")
    made = {name: make_video(folder / name, **arguments) for name, arguments in FORMATS.items()}
    if hasattr(os, "sched_setscheduler"):
        # Run as root, SVT's AV1 encoder takes real-time priority for the thread that calls it and keeps it: from then
        # on this process, and all that it starts, would keep the cores from everything else on the machine.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_frame_exact(media, name):
    path = media[name]
    assert numbers(decode_frames(path, range(50))) == list(range(50))
    assert numbers(decode_frames(path, [31, 3, 3, 49, 12, 0])) == [31, 3, 3, 49, 12, 0]
    assert numbers(decode_frames(path, [48, 50, 1000])) == [48, 49, 49]
    assert [number for _, frame in iter_frames(path) for number in numbers(frame[None])] == list(range(50))


@pytest.mark.parametrize("name", FORMATS)
def test_a_piece_of_the_file_is_frame_exact(media, name):
    path = media[name]
    # 0.84 s is frame 21; the piece ends before frame 31.
    assert numbers(decode_frames(path, [0, 4, 9, 10, 99], start_s=0.839, end_s=1.239)) == [21, 25, 30, 30, 30]
    assert numbers(decode_frames(path, [0], start_s=1.9601)) == [49]  # frame 49 is on the screen until 2.0 s
    timed = [(round(t * FPS), *numbers(frame[None])) for t, frame in iter_frames(path, every_s=0.2, start_s=0.399)]
    assert timed == [(number, number) for number in range(10, 50, 5)]
    with pytest.raises(MediaError) as caught:
        decode_frames(path, [0], start_s=60.0)
    assert caught.value.reason is Reason.NO_FRAMES


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("thorough", [False, True])
def test_probe_finds_the_true_facts(media, name, thorough):
    facts = probe_media(media[name], thorough=thorough)
    assert (facts.num_frames, facts.width, facts.height, facts.rotation) == (50, 128, 96, 0)
    assert facts.fps == pytest.approx(FPS, rel=0.01)
    assert facts.duration_s == pytest.approx(2.0, abs=0.05)
    assert (facts.decodable_share, facts.first_bad_s, facts.flags) == (1.0, None, [])
    assert not facts.variable_fps
    assert len(facts.sha256) == 64 and len(facts.phash) == 16


@given(
    indices=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    start=st.integers(0, 40),
    length=st.integers(1, 30),
    name=st.sampled_from(["h264.mp4", "h264-open-gop.mkv", "h264.ts", "vp9.webm", "mpeg4.avi"]),
)
def test_indices_count_from_the_start_and_clamp_at_the_end(media, indices, start, length, name):
    last = min(start + length, 50) - 1
    # Half a frame of slack: containers round their time stamps, some to milliseconds.
    frames = decode_frames(media[name], indices, start_s=(start - 0.5) / FPS, end_s=(start + length - 0.5) / FPS)
    assert numbers(frames) == [min(start + index, last) for index in indices]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_rotation_metadata_is_applied(tmp_path, rotate, flip):
    path = make_video(tmp_path / "turned.mp4", 5, rotate=rotate, flip=flip, gop=1, options={"qp": "4"})
    plain = make_video(tmp_path / "plain.mp4", 5, gop=1, options={"qp": "4"})
    frame = decode_frames(path, [3])[0].astype(int)
    with av.open(str(path)) as container:
        stated = next(container.decode(video=0)).rotation
    expected = decode_frames(plain, [3])[0].astype(int)
    if not flip:
        # FFmpeg states the angle counterclockwise, as numpy's rot90 turns.
        assert stated % 360 == rotate % 360
        expected = np.rot90(expected, stated // 90)
        assert probe_media(path).rotation == -rotate % 360
    else:
        expected = expected[:, ::-1] if rotate == 0 else None
    if expected is not None:
        assert frame.shape == expected.shape
        assert np.abs(frame - expected).mean() < 1
    facts = probe_media(path)
    assert (facts.width, facts.height) == (frame.shape[1], frame.shape[0])


def test_short_side_resizes_on_the_way(tmp_path):
    path = make_video(tmp_path / "wide.mp4", 5, size=(320, 180))
    assert decode_frames(path, [0, 4], short_side=90).shape == (2, 90, 160, 3)
    assert decode_frames(path, [0], short_side=256).shape == (1, 256, 455, 3)
    turned = make_video(tmp_path / "tall.mp4", 5, size=(320, 180), rotate=90)
    assert decode_frames(turned, [0], short_side=90).shape == (1, 160, 90, 3)
    assert numbers(decode_frames(path, [4], short_side=64)) == [4]


def test_colours_follow_the_declared_matrix_and_depth(tmp_path):
    reference = decode_frames(make_video(tmp_path / "8.mp4", 3, options={"qp": "1"}), [1])[0].astype(int)
    for name, pixel_format in (("10.mp4", "yuv420p10le"), ("444.mp4", "yuv444p")):
        other = decode_frames(make_video(tmp_path / name, 3, pixel_format=pixel_format, options={"qp": "1"}), [1])[0]
        assert np.abs(other.astype(int) - reference).mean() < 3


def test_variable_frame_rate(tmp_path):
    times = [0, 1, 2, 3, 10, 11, 12, 30, 31, 50]
    for name in ("vfr.mp4", "vfr.mkv"):
        path = make_video(tmp_path / name, 10, times=times)
        facts = probe_media(path)
        assert facts.variable_fps and facts.num_frames == 10
        assert facts.fps == pytest.approx(9 / (50 / FPS), rel=0.01)
        assert numbers(decode_frames(path, [0, 1, 5], start_s=10 / FPS - 0.001)) == [4, 5, 9]
        assert [round(t * FPS) for t, _ in iter_frames(path)] == times
        assert numbers(decode_frames(path, [0], start_s=20 / FPS)) == [7]


def test_a_start_that_is_not_zero(tmp_path):
    path = make_video(tmp_path / "late.mkv", 20, times=[number + 125 for number in range(20)])
    facts = probe_media(path)
    assert facts.start_time_s == pytest.approx(5.0, abs=0.01) and facts.duration_s == pytest.approx(0.8, abs=0.01)
    assert numbers(decode_frames(path, [0, 3])) == [0, 3]
    assert numbers(decode_frames(path, [0], start_s=0.399)) == [10]


def test_edit_lists_hide_frames(tmp_path):
    plain = make_video(tmp_path / "plain.mp4", 50, options=B_FRAMES)
    path = remux(plain, tmp_path / "edited.mp4", shift=-18)
    with av.open(str(path)) as container:
        assert sum(packet.is_discard for packet in container.demux(video=0)) > 0, "the file has no edit list"
    facts = probe_media(path, thorough=True)
    assert facts.num_frames == 32 and facts.decodable_share == 1.0
    assert facts.duration_s == pytest.approx(32 / FPS, abs=0.05)
    assert numbers(decode_frames(path, [0, 1, 31, 40])) == [18, 19, 49, 49]


def test_many_packets_are_not_held_in_memory(tmp_path, monkeypatch):
    path = make_video(tmp_path / "long.mp4", 250, options=B_FRAMES)
    monkeypatch.setattr("omnisource.media.video._HELD_BYTES", 1000)
    wanted = [249, 7, 100, 101, 13]
    assert numbers(decode_frames(path, wanted)) == wanted
    assert numbers(decode_frames(path, [0, 50], start_s=4.0)) == [100, 150]


def test_only_what_is_needed_is_decoded(media, monkeypatch):
    """Key frames alone in prepared media; from the last key frame on otherwise."""
    from omnisource.media.container import Video

    decoded = 0
    original = Video.decode

    def counting(self, packet):
        nonlocal decoded
        decoded += packet is not None
        return original(self, packet)

    monkeypatch.setattr(Video, "decode", counting)
    decode_frames(media["h264-key-only.mp4"], [3, 20, 40])
    assert decoded == 3
    decoded = 0
    decode_frames(media["h264-sound.mp4"], [0, 12, 24, 36])
    assert decoded == 4
    decoded = 0
    decode_frames(media["h264-10bit.mp4"], [24, 26])
    assert decoded == 3


@pytest.mark.parametrize("more", ["", "tff=1", "open-gop=1:b-pyramid=strict", "ref=1:bframes=0"])
def test_pictures_that_nobody_needs_change_nothing(tmp_path, more):
    """Unreferenced H.264 pictures are skipped: every bit of the others stays, interlaced or not."""
    options = {"preset": "veryfast", "bf": "3"} | ({"x264-params": more} if more else {})
    path = make_video(tmp_path / "a.mp4", options=options, gop=30)
    every = decode_frames(path, range(50))
    for indices in ([7], [3, 11, 12, 40], [49], list(range(0, 50, 7))):
        assert (decode_frames(path, indices) == every[indices]).all(), (more, indices)


def test_no_decoded_frame_waits_for_the_garbage_collector(media):
    gc.collect()
    gc.disable()
    try:
        decode_frames(media["h264.mp4"], range(40), short_side=32)
        left = [thing for thing in gc.get_objects() if type(thing) is av.VideoFrame]
    finally:
        gc.enable()
    # PyAV's side data and its frame refer to each other, so the one that was asked how it lies may stay: a small one.
    assert len(left) <= 1 and all(frame.height <= 32 for frame in left)


def test_keys_only_takes_the_key_frame_before_but_takes_it_once(media):
    path = media["h264-sound.mp4"]  # a key frame every 12 frames
    assert numbers(decode_frames(path, [0, 11, 12, 13, 47, 48, 49], keys_only=True)) == [0, 11, 12, 13, 36, 48, 49]
    assert numbers(decode_frames(path, [23, 5, 5, 14], keys_only=True)) == [23, 0, 0, 12]
    # In a piece that begins between key frames, the first frame stands for those before its first key frame.
    assert numbers(decode_frames(path, [0, 1, 3, 20], start_s=0.839, keys_only=True)) == [21, 22, 24, 36]
    assert numbers(decode_frames(media["mpeg4.avi"], [5], keys_only=True)) == [5]  # no time stamps: exact


def test_animated_images_count_as_videos_and_stills_as_one_frame(tmp_path):
    frames = [Image.fromarray(frame) for frame in _still_frames(4)]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=[100, 100, 200, 100])
        facts = probe_media(tmp_path / name)
        assert (facts.kind, facts.num_frames) == ("image", 4)
        assert facts.duration_s == pytest.approx(0.5, abs=0.05)
        assert numbers(decode_frames(tmp_path / name, [3, 1, 9])) == [3, 1, 3]
        assert numbers(decode_frames(tmp_path / name, [0], start_s=0.15)) == [2]
        assert [number for _, f in iter_frames(tmp_path / name) for number in numbers(f[None])] == [0, 1, 2, 3]
    frames[3].save(tmp_path / "still.jpg", quality=95)
    assert numbers(decode_frames(tmp_path / "still.jpg", [0, 5])) == [3, 3]


def _still_frames(count):
    from odd_media import numbered_frame

    return [numbered_frame(number) for number in range(count)]


def test_damage_in_the_middle_costs_only_the_damaged_frames(tmp_path):
    path = make_video(tmp_path / "hurt.mp4", 100, gop=10, container_options={"movflags": "faststart"})
    overwrite(path, 0.5, 2000)
    facts = probe_media(path, thorough=True)
    assert 0.5 < facts.decodable_share < 1.0
    assert 0 < facts.first_bad_s < 4.0
    first_bad = round(facts.first_bad_s * FPS)
    good = [index for index in (0, 10, 20, 90, 99) if not first_bad <= index < first_bad + 20]
    assert numbers(decode_frames(path, good)) == good


def test_too_much_damage_is_an_error(tmp_path):
    vp9 = {"deadline": "realtime", "cpu-used": "8"}
    path = make_video(
        tmp_path / "gone.mp4", 60, codec="libvpx-vp9", options=vp9, container_options={"movflags": "faststart"}
    )
    overwrite(path, 0.3, path.stat().st_size)
    with pytest.raises(MediaError) as caught:
        decode_frames(path, range(60))
    assert caught.value.reason in (Reason.CORRUPT, Reason.NO_FRAMES)


def test_truncated_at_either_end(tmp_path):
    whole = make_video(tmp_path / "whole.mp4", 100, container_options={"movflags": "faststart"})
    facts = probe_media(cut(whole, tmp_path / "end.mp4", 0, 0.6))
    assert 0.3 < facts.decodable_share < 0.8
    assert 0.8 < facts.first_bad_s < 3.5
    assert numbers(decode_frames(tmp_path / "end.mp4", [0, 20])) == [0, 20]
    late = make_video(tmp_path / "late-moov.mp4", 100)
    with pytest.raises(MediaError) as caught:
        probe_media(cut(late, tmp_path / "no-moov.mp4", 0, 0.9))
    assert caught.value.reason is Reason.CORRUPT
    with pytest.raises(MediaError) as caught:
        probe_media(cut(whole, tmp_path / "no-head.mp4", 0.3, 1))
    assert caught.value.reason in (Reason.NOT_MEDIA, Reason.CORRUPT)
    stream = make_video(tmp_path / "whole.ts", 100)
    facts = probe_media(cut(stream, tmp_path / "both-ends.ts", 0.2, 0.8), thorough=True)
    assert facts.num_frames > 40 and facts.decodable_share > 0.7
    matroska = make_video(tmp_path / "whole.mkv", 100)
    facts = probe_media(cut(matroska, tmp_path / "end.mkv", 0, 0.5))
    assert facts.decodable_share < 0.8 and facts.first_bad_s is not None


def test_a_size_that_changes_in_the_middle(tmp_path):
    settings = {"codec": "mjpeg", "pixel_format": "yuvj420p"}
    parts = [
        make_video(tmp_path / "a.mkv", 5, **settings),
        make_video(tmp_path / "b.mkv", 5, **settings, size=(320, 180)),
    ]
    with (
        av.open(str(tmp_path / "both.mkv"), "w") as out,
        av.open(str(parts[0])) as first,
        av.open(str(parts[1])) as second,
    ):
        stream = out.add_stream_from_template(first.streams.video[0])
        for number, packet in enumerate(p for c in (first, second) for p in c.demux(video=0) if p.size):
            packet.pts = packet.dts = number * 40
            packet.stream = stream
            out.mux(packet)
    frames = decode_frames(tmp_path / "both.mkv", range(10))
    assert frames.shape == (10, 96, 128, 3) and numbers(frames) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_wrong_use_is_refused(media):
    for indices in ([], [-1], [3, -2]):
        with pytest.raises(ValueError, match="indices"):
            decode_frames(media["h264.mp4"], indices)


def test_limits_hold_before_decoding(media):
    for limits, reason in (
        (Limits(max_pixels=100), Reason.TOO_MANY_PIXELS),
        (Limits(max_duration_s=1), Reason.TOO_LONG),
        (Limits(max_bytes=100), Reason.TOO_MANY_BYTES),
        (Limits(memory_bytes=1000), Reason.MEMORY),
        (Limits(timeout_s=1e-9), Reason.TIMEOUT),
    ):
        with pytest.raises(MediaError) as caught:
            decode_frames(media["h264.mp4"], [0], limits=limits)
        assert caught.value.reason is reason
