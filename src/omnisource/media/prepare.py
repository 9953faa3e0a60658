"""Media in training form: small, and so encoded that a clip decodes key frames only."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from omnisource.media.image import U8, decode_image
from omnisource.media.limits import DEFAULT_LIMITS, Limits, MediaError, Reason
from omnisource.media.video import iter_frames

_TICKS = 90_000  # per second: divides all common frame rates


@dataclass(frozen=True)
class Prepared:
    """What `prepare_video` or `prepare_image` wrote."""

    width: int
    height: int
    num_frames: int
    bytes: int


def prepare_video(
    path: str | Path, target: Path, *, short_side: int, gop: int, crf: int = 20, limits: Limits = DEFAULT_LIMITS
) -> Prepared:
    """Writes a video (or animated image) as upright H.264 with a key frame every `gop` frames and the same frame times.

    A clip whose stride is `gop` then needs key frames alone: `decode_frames(target, ..., keys_only=True)`. There are
    no B-frames, no CABAC and no deblocking (x264's tune for fast decoding), which halves the time once more for about
    a tenth more bytes. No sound. The file appears whole or not at all.

    short_side: in pixels, after resizing. crf: quality of x264, 0 (lossless) to 51. Raises MediaError.
    """
    options = {
        "preset": "veryfast",
        "tune": "fastdecode",
        "crf": str(crf),
        "threads": "1",
        "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0",
    }
    with _appearing(target) as partial, av.open(str(partial), "w", options={"movflags": "faststart"}) as out:
        stream: Any = None
        count, pts = 0, -1
        for seconds, picture in iter_frames(path, short_side=short_side, limits=limits):
            height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2  # 4:2:0 needs even sides
            if stream is None:
                if min(height, width) == 0:
                    raise MediaError(Reason.UNSUPPORTED, f"{path}: too narrow for a video, {picture.shape[1::-1]}")
                stream = _add_stream(out, width, height, options)
            # The first frame stands at 0 also when frames before it are lost, so that times stay those of the original.
            pts = max(pts + 1, round(seconds * _TICKS)) if count else 0
            _encode(out, stream, picture[:height, :width], pts)
            count += 1
        for packet in stream.encode(None):
            out.mux(packet)
        size = stream.width, stream.height
    return Prepared(*size, num_frames=count, bytes=target.stat().st_size)


def prepare_image(
    path: str | Path, target: Path, *, short_side: int, quality: int = 92, limits: Limits = DEFAULT_LIMITS
) -> Prepared:
    """Writes an image as an upright JPEG of the given short side. The file appears whole or not at all. MediaError."""
    picture = decode_image(path, limits, short_side)
    with _appearing(target) as partial:
        Image.fromarray(picture).save(partial, "JPEG", quality=quality)
    return Prepared(picture.shape[1], picture.shape[0], num_frames=1, bytes=target.stat().st_size)


def _add_stream(out: Any, width: int, height: int, options: dict[str, str]) -> Any:
    stream = out.add_stream("libx264", rate=30, options=options)  # the rate is nominal; time stamps decide
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = Fraction(1, _TICKS)
    return stream


def _encode(out: Any, stream: Any, picture: U8, pts: int) -> None:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame.pts, frame.time_base = pts, Fraction(1, _TICKS)
    for packet in stream.encode(frame):
        out.mux(packet)


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that becomes it when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
