"""The odd media that the web has: each gives facts or a reason; none crashes, hangs or exceeds its limits."""

import contextlib
import functools
import hashlib
import os
import struct
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from odd_media import cut, make_sound, make_video, numbered_frame, numbers, overwrite
from PIL import Image

from omnisource.media import (
    Failure,
    IsolatedPool,
    Limits,
    MediaError,
    MediaFacts,
    Reason,
    decode_frames,
    decode_image,
    probe_media,
)
from omnisource.media import probe as probing

LIMITS = Limits(timeout_s=20, memory_bytes=512 * 1024**2)
FAST_START = {"movflags": "faststart"}


def zero_byte(folder: Path) -> Path:
    (folder / "zero.mp4").touch()
    return folder / "zero.mp4"


def html(folder: Path) -> Path:
    (folder / "html.mp4").write_text("<!DOCTYPE html><html><body>Sorry, this video is gone.</body></html>")
    return folder / "html.mp4"


def random_bytes(folder: Path) -> Path:
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(100_000))
    return folder / "noise.mp4"


def noise_behind_a_good_head(folder: Path) -> Path:
    path = make_video(folder / "noise2.mp4", 20)
    path.write_bytes(path.read_bytes()[:40] + np.random.default_rng(0).bytes(50_000))
    return path


def no_end(folder: Path) -> Path:
    return cut(make_video(folder / "whole.mp4", 100, container_options=FAST_START), folder / "no-end.mp4", 0, 0.6)


def no_index(folder: Path) -> Path:
    return cut(make_video(folder / "whole2.mp4", 50), folder / "no-index.mp4", 0, 0.9)


def no_beginning(folder: Path) -> Path:
    return cut(make_video(folder / "whole3.mp4", 50), folder / "no-beginning.mp4", 0.3, 1)


def jpeg_named_mp4(folder: Path) -> Path:
    Image.fromarray(numbered_frame(9)).save(folder / "picture.mp4", "JPEG", quality=95)
    return folder / "picture.mp4"


def animated_gif(folder: Path) -> Path:
    frames = [Image.fromarray(numbered_frame(number)) for number in range(6)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:], duration=80)
    return folder / "moving.gif"


def audio_only(folder: Path) -> Path:
    return make_sound(folder / "sound.mp4")


def wave(folder: Path) -> Path:
    header = b"RIFF" + struct.pack("<I", 36 + 800) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    (folder / "sound.wav").write_bytes(header + b"data" + struct.pack("<I", 800) + bytes(800))
    return folder / "sound.wav"


def one_frame(folder: Path) -> Path:
    return make_video(folder / "one.mp4", 1)


def still(folder: Path) -> Path:
    return make_video(folder / "still.mp4", 30, still=True)


def black(folder: Path) -> Path:
    return make_video(folder / "black.mp4", 30, black=True)


def still_until_late(folder: Path) -> Path:
    """One long group of pictures that begins to move only where the fast path does not look."""
    return make_video(folder / "late.mp4", 120, gop=250, times=[n if n < 119 else 400 for n in range(120)])


def huge_video(folder: Path) -> Path:
    return make_video(folder / "huge.mkv", 1, codec="mjpeg", pixel_format="yuvj420p", size=(8192, 8192), black=True)


def huge_image(folder: Path) -> Path:
    Image.new("L", (8192, 8192)).save(folder / "huge.png")
    return folder / "huge.png"


def grows_meanwhile(folder: Path) -> Path:
    """A video whose last picture is 8192 x 8192, which the header does not say."""
    settings = {"codec": "mjpeg", "pixel_format": "yuvj420p", "container": "matroska"}
    small = make_video(folder / "small.mkv", 11, **settings)
    big = make_video(folder / "big.mkv", 1, **settings, size=(8192, 8192), black=True)
    path = folder / "grows.mkv"
    with av.open(str(path), "w") as out, av.open(str(small)) as first, av.open(str(big)) as second:
        stream = out.add_stream_from_template(first.streams.video[0])
        for packet in [*first.demux(video=0), *second.demux(video=0)]:
            if packet.size:
                if packet.stream.container is second:
                    packet.pts = packet.dts = 11 * 40  # milliseconds
                packet.stream = stream
                out.mux(packet)
    return path


def twelve_hours(folder: Path) -> Path:
    return make_video(folder / "long.mp4", 2, times=[0, 12 * 3600 * 25])


def slow_to_decode(folder: Path) -> Path:
    return make_video(folder / "slow.mp4", 200, size=(2560, 1440), black=True, gop=250)


# maker, reason of the failure or facts that must hold, frames that must come out
TABLE = {
    "zero bytes": (zero_byte, Reason.EMPTY),
    "HTML saved as .mp4": (html, Reason.NOT_MEDIA),
    "random bytes": (random_bytes, Reason.NOT_MEDIA),
    "noise behind a good head": (noise_behind_a_good_head, Reason.CORRUPT),
    "end cut off": (no_end, {"kind": "video"}),
    "index cut off": (no_index, Reason.CORRUPT),
    "beginning cut off": (no_beginning, Reason.NOT_MEDIA),
    "JPEG named .mp4": (jpeg_named_mp4, {"kind": "image", "container": "jpeg", "num_frames": 1}),
    "animated GIF": (animated_gif, {"kind": "image", "container": "gif", "num_frames": 6, "still": False}),
    "audio only": (audio_only, {"audio_only": True, "num_frames": 0, "decodable_share": 0.0}),
    "WAV": (wave, {"audio_only": True, "num_frames": 0}),
    "one frame": (one_frame, {"one_frame": True, "num_frames": 1, "still": False}),
    "still": (still, {"still": True, "black": False, "num_frames": 30}),
    "black": (black, {"still": True, "black": True}),
    "8192x8192 video": (huge_video, Reason.TOO_MANY_PIXELS),
    "8192x8192 image": (huge_image, Reason.TOO_MANY_PIXELS),
    "claimed 12 hours": (twelve_hours, Reason.TOO_LONG),
    "still until late": (still_until_late, {"still": False}),
}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("thorough", [False, True])
def test_each_has_facts_or_a_reason(tmp_path, name, thorough):
    maker, expected = TABLE[name]
    path = maker(tmp_path)
    started = time.monotonic()
    if isinstance(expected, Reason):
        with pytest.raises(MediaError) as caught:
            probe_media(path, LIMITS, thorough)
        assert caught.value.reason is expected
        with pytest.raises(MediaError):
            decode_frames(path, [0], limits=LIMITS)
    else:
        facts = probe_media(path, LIMITS, thorough)
        assert {key: getattr(facts, key) for key in expected} == expected
        assert facts.bytes == path.stat().st_size
        assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        if facts.num_frames:
            assert decode_frames(path, [0, facts.num_frames + 5], limits=LIMITS).shape[0] == 2
        else:
            with pytest.raises(MediaError) as caught:
                decode_frames(path, [0])
            assert caught.value.reason in (Reason.NO_VIDEO, Reason.WRONG_KIND)
    assert time.monotonic() - started < 20


def test_a_picture_that_grows_in_the_middle_stays_within_the_limit(tmp_path):
    path = grows_meanwhile(tmp_path)
    before = psutil.Process().memory_info().rss
    facts = probe_media(path, LIMITS, thorough=True)
    assert (facts.width, facts.height) == (128, 96) and facts.decodable_share < 1.0
    assert numbers(decode_frames(path, [0, 5, 10], limits=LIMITS)) == [0, 5, 10]
    assert psutil.Process().memory_info().rss - before < 64 * 1024**2


def test_a_duration_is_measured_not_only_read_in_the_header(tmp_path):
    content = make_video(tmp_path / "days.mp4", 2).read_bytes()
    scale = struct.unpack_from(">I", content, content.index(b"mdhd") + 16)[0]
    at = content.index(b"stts") + 16  # behind the version, the number of entries, and how many frames the first is of
    (tmp_path / "days.mp4").write_bytes(content[:at] + struct.pack(">I", 24 * 3600 * scale) + content[at + 4 :])
    with pytest.raises(MediaError) as caught:
        probe_media(tmp_path / "days.mp4")
    assert caught.value.reason is Reason.TOO_LONG


def test_time_limit(tmp_path):
    path = slow_to_decode(tmp_path)
    started = time.monotonic()
    with pytest.raises(MediaError) as caught:
        probe_media(path, replace(LIMITS, timeout_s=0.02), thorough=True)
    assert caught.value.reason is Reason.TIMEOUT
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("before", ["_read_track", "_decode_all"])  # in both the file is open
@pytest.mark.parametrize("change", ["vanish", "grow", "replace"])
def test_a_file_that_changes_while_it_is_read(tmp_path, change, before, monkeypatch):
    path = make_video(tmp_path / "changes.mp4", 5)
    other = make_video(tmp_path / "other.mp4", 2)
    step = getattr(probing, before)

    def change_then_go_on(*given):  # at that moment, however fast the machine is
        if change == "vanish":
            path.unlink()
        elif change == "grow":
            with path.open("ab") as file:
                file.write(b"more")
        else:
            other.replace(path)
        return step(*given)

    monkeypatch.setattr(probing, before, change_then_go_on)
    with pytest.raises(MediaError) as caught:
        probe_media(path, LIMITS, thorough=True)
    assert caught.value.reason is (Reason.MISSING if change == "vanish" else Reason.CHANGED)


def probe_without_rights(path: str) -> MediaFacts:
    if os.geteuid() == 0:
        os.setuid(65534)
    return probe_media(path)


def spin(path: str) -> None:
    """What a decoder that hangs looks like from outside: native code that never returns."""
    hashlib.pbkdf2_hmac("sha256", Path(path).read_bytes(), b"", 2**31 - 1)


def test_unreadable_permissions(tmp_path):
    path = make_video(tmp_path / "private.mp4", 2)
    path.chmod(0)
    with IsolatedPool(1) as pool:
        [(_, result)] = pool.map(probe_without_rights, [str(path)])
    assert isinstance(result, Failure) and result.reason is Reason.UNREADABLE


def test_a_decoder_that_hangs_is_killed_and_the_others_go_on(tmp_path):
    path = make_video(tmp_path / "good.mp4", 5)
    with IsolatedPool(1, timeout_s=1.0) as pool:
        [(_, hung)] = pool.map(spin, [str(path)])
        [(_, fine)] = pool.map(functools.partial(probe_media, limits=LIMITS), [str(path)])
    assert isinstance(hung, Failure) and hung.reason is Reason.TIMEOUT
    assert isinstance(fine, MediaFacts) and fine.num_frames == 5


def test_what_is_no_plain_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for path, reason in (
        (tmp_path / "pipe.mp4", Reason.UNREADABLE),
        (tmp_path / "folder.mp4", Reason.UNREADABLE),
        (Path("/dev/zero"), Reason.UNREADABLE),
        (tmp_path / "loop.mp4", Reason.UNREADABLE),
        (tmp_path / "dangling.mp4", Reason.MISSING),
        (tmp_path / ("n" * 300 + ".mp4"), Reason.UNREADABLE),
        (str(tmp_path) + "/a\0b.mp4", Reason.UNREADABLE),
        ("nosuchprotocol://bucket/a.mp4", Reason.UNREADABLE),
    ):
        for examine in (probe_media, decode_image, lambda p: decode_frames(p, [0])):
            with pytest.raises(MediaError) as caught:
                examine(path)
            assert caught.value.reason is reason, path


@pytest.mark.parametrize(
    "name",
    [
        "with spaces.mp4",
        "with\nnewline.mp4",
        "ünïcødé 動画 🎬.mp4",
        "-dash.mp4",
        "concat:a|b.mp4",
        "http:evil.mp4",
        "%03d.mp4",
        "a%05d.jpg",
        "a*.png",
        "a*b?.mp4",
        "quote'\".mp4",
        os.fsdecode(b"not-utf8-\xff.mp4"),
        "../up.mp4",
    ],
)
def test_odd_names(tmp_path, name):
    (tmp_path / "inner").mkdir()
    path = tmp_path / "inner" / name
    make_video(tmp_path / "plain.mp4", 4).rename(path)
    assert probe_media(path).num_frames == 4
    assert numbers(decode_frames(str(path), [2])) == [2]


def test_a_playlist_cannot_reach_other_files(tmp_path):
    secret = make_video(tmp_path / "secret.ts", 5)
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {secret.name}\n",
    ):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(MediaError) as caught:
            probe_media(tmp_path / "list.mp4")
        assert caught.value.reason is Reason.NOT_MEDIA


def test_video_from_an_fsspec_url(tmp_path):
    import fsspec

    with fsspec.open("memory://bucket/a.mp4", "wb") as file:
        file.write(make_video(tmp_path / "a.mp4", 30).read_bytes())
    assert probe_media("memory://bucket/a.mp4").num_frames == 30
    assert numbers(decode_frames("memory://bucket/a.mp4", [29, 3])) == [29, 3]
    assert numbers(decode_frames("memory://bucket/a.mp4", [0], start_s=0.8)) == [20]


def examine_damaged(job: tuple[str, str, int]) -> str:
    """Damages a copy of a file at random, then looks at it in every way. Returns what came out."""
    original, folder, seed = job
    rng = np.random.default_rng(seed)
    path = Path(folder) / f"{seed}{Path(original).suffix}"
    path.write_bytes(Path(original).read_bytes())
    for _ in range(int(rng.integers(1, 6))):
        overwrite(path, float(rng.random() ** 2), int(rng.integers(1, 64)), int(rng.integers(2**31)))
    if rng.random() < 0.3:
        cut(path, path, *sorted(rng.random(2)))
    outcome = []
    for examine in (
        lambda: probe_media(path, LIMITS),
        lambda: probe_media(path, LIMITS, thorough=True),
        lambda: decode_frames(path, [0, 5, 9], limits=LIMITS),
        lambda: decode_frames(path, [0, 3], start_s=0.3, limits=LIMITS, short_side=40),
        lambda: decode_image(path, LIMITS),
    ):
        try:
            examine()
            outcome.append("ok")
        except MediaError as error:
            outcome.append(str(error.reason))
    path.unlink()
    return " ".join(outcome)


def run_damage(tmp_path: Path, seeds: int) -> list[tuple[tuple[str, str, int], str | Failure]]:
    originals = [
        make_video(tmp_path / "a.mp4", 12),
        make_video(tmp_path / "b.mkv", 12, sound=True),
        make_video(tmp_path / "c.ts", 12),
        make_video(tmp_path / "d.avi", 12, codec="mpeg4", options={"bf": "2"}),
        make_video(tmp_path / "e.flv", 12, codec="flv"),
        make_video(tmp_path / "f.webm", 12, codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
        make_video(tmp_path / "g.wmv", 12, codec="wmv2"),
        animated_gif(tmp_path),
        jpeg_named_mp4(tmp_path),
        tmp_path / "h.png",
        tmp_path / "i.webp",
    ]
    Image.fromarray(numbered_frame(3)).save(originals[-2])
    Image.fromarray(numbered_frame(3)).save(originals[-1])
    jobs = [(str(path), str(tmp_path), seed * 1000 + n) for seed in range(seeds) for n, path in enumerate(originals)]
    with IsolatedPool(2, timeout_s=30, memory_bytes=1024**3) as pool:
        return list(pool.map(examine_damaged, jobs))


def test_random_damage_never_escapes(tmp_path):
    results = run_damage(tmp_path, 20)
    escaped = [(job, result) for job, result in results if isinstance(result, Failure)]
    assert not escaped, escaped[:5]
    assert any("ok" in result for _, result in results) and any("corrupt" in result for _, result in results)


@pytest.mark.slow
def test_random_damage_never_escapes_long(tmp_path):
    escaped = [(job, result) for job, result in run_damage(tmp_path, 1000) if isinstance(result, Failure)]
    assert not escaped, escaped[:5]


@pytest.mark.slow
def test_memory_stays_flat_over_many_files(tmp_path):
    """Soak: 3,000 decodes and 1,000 probes of good and bad files in one process."""
    good = [
        make_video(tmp_path / "a.mp4", 60, size=(340, 256)),
        make_video(tmp_path / "b.webm", 40, codec="libvpx-vp9", options={"deadline": "realtime"}),
        make_video(tmp_path / "c.avi", 40, codec="mpeg4"),
        animated_gif(tmp_path),
    ]
    bad = [no_end(tmp_path), no_index(tmp_path), random_bytes(tmp_path), noise_behind_a_good_head(tmp_path)]

    def one_round(number: int) -> None:
        for path in (*good, *bad):
            for examine in (
                lambda p=path: decode_frames(p, [number % 7, 3, 30], limits=LIMITS),
                lambda p=path: decode_frames(p, [0], start_s=0.5, short_side=64, limits=LIMITS),
                lambda p=path: decode_image(p, LIMITS),
                lambda p=path: probe_media(p, LIMITS, thorough=number % 4 == 0),
            ):
                with contextlib.suppress(MediaError):
                    examine()

    process = psutil.Process()
    for number in range(50):
        one_round(number)
    before = process.memory_info().rss
    for number in range(200):
        one_round(number)
    grown = process.memory_info().rss - before
    assert grown < 16 * 1024**2, f"{grown / 1024**2:.0f} MiB more after 200 rounds"
