"""Makes media files for tests: ordinary ones whose frames say their number, and odd ones."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT, FPS = 128, 96, 25
_BITS = 8


def numbered_frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(H, W, 3) uint8: the upper half shows `number` as 8 black or white columns, the lower a moving gradient."""
    frame = np.empty((height, width, 3), np.uint8)
    x = np.arange(width)
    bits = (number >> (x * _BITS // width)) & 1
    frame[: height // 2] = (bits * 255)[None, :, None]
    frame[height // 2 :, :, 0] = (x * 2 + number * 3) % 256
    frame[height // 2 :, :, 1] = np.arange(height - height // 2)[:, None] * 2
    frame[height // 2 :, :, 2] = 128
    return frame


def read_number(frame: np.ndarray) -> int:
    """The number that an upright frame shows, at any size."""
    height, width = frame.shape[:2]
    row = frame[height // 4, :, :].mean(axis=1)
    centres = ((np.arange(_BITS) + 0.5) * width / _BITS).astype(int)
    return int(sum(1 << bit for bit, x in enumerate(centres) if row[x] > 127))


def numbers(frames: np.ndarray) -> list[int]:
    return [read_number(frame) for frame in frames]


def make_video(
    path: Path,
    frames: int = 50,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    gop: int = 12,
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    times: Sequence[int] | None = None,
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    rotate: int = 0,
    flip: bool = False,
    sound: bool = False,
    still: bool = False,
    black: bool = False,
) -> Path:
    """Writes a video of numbered frames. `times`: time stamps in 1/FPS s (may be irregular), default 0, 1, 2, ..."""
    if options is None:
        options = {"preset": "ultrafast"} if codec in ("libx264", "libx265") else {}
    if codec == "libx265":
        options = {**options, "x265-params": "log-level=none"}
    with av.open(str(path), "w", format=container, options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, FPS)
        if codec == "mpeg4":
            stream.codec_context.bit_rate = 2_000_000
        if rotate or flip:
            stream.set_display_rotation(rotate, hflip=flip)
        voice = _add_sound(out) if sound else None
        blank = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), format="rgb24") if black else None
        for number in range(frames):
            frame = blank or av.VideoFrame.from_ndarray(numbered_frame(0 if still else number, *size), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, FPS)
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
        if voice is not None:
            _write_sound(out, voice, frames / FPS)
    return path


def make_sound(path: Path, seconds: float = 1.0) -> Path:
    """Writes a file with sound and no pictures."""
    with av.open(str(path), "w") as out:
        _write_sound(out, _add_sound(out), seconds)
    return path


def _add_sound(out: Any) -> Any:
    return out.add_stream("aac", rate=16000, layout="mono")


def _write_sound(out: Any, stream: Any, seconds: float) -> None:
    for start in range(0, int(seconds * 16000), 1024):
        wave = np.sin(np.arange(start, start + 1024) * 0.2).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        for packet in stream.encode(frame):
            out.mux(packet)
    for packet in stream.encode(None):
        out.mux(packet)


def remux(source: Path, path: Path, *, shift: int, container: str | None = None) -> Path:
    """Copies the pictures of `source` with all time stamps moved by `shift` frames; negative ones get cut by MP4."""
    with av.open(str(source)) as given, av.open(str(path), "w", format=container) as out:
        pictures = given.streams.video[0]
        stream = out.add_stream_from_template(pictures)
        ticks = round(shift / FPS / float(pictures.time_base))
        for packet in given.demux(pictures):
            if packet.dts is None:
                continue
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            packet.stream = stream
            out.mux(packet)
    return path


def cut(source: Path, path: Path, begin: float = 0.0, end: float = 1.0) -> Path:
    """Copies the bytes between two shares of a file."""
    content = source.read_bytes()
    path.write_bytes(content[int(begin * len(content)) : int(end * len(content))])
    return path


def overwrite(path: Path, share: float, length: int, seed: int = 0) -> Path:
    """Replaces `length` bytes at `share` of the file by noise."""
    content = bytearray(path.read_bytes())
    at = int(share * len(content))
    noise = np.random.default_rng(seed).integers(0, 256, min(length, len(content) - at), np.uint8)
    content[at : at + len(noise)] = noise.tobytes()
    path.write_bytes(content)
    return path
