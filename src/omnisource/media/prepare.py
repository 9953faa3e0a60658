"""Media in training form: small, and so encoded that a clip decodes key frames only."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from omnisource.media.image import U8, decode_image
from omnisource.media.limits import DEFAULT_LIMITS, Limits, MediaError, Reason
from omnisource.media.video import iter_frames
from omnisource.media.write import partial_of, write_video


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
    frames = _even(iter_frames(path, short_side=short_side, limits=limits))
    _, first = next(frames)  # iter_frames raises where there is none
    # The first frame stands at 0 also when frames before it are lost, so that times stay those of the original.
    count = write_video(
        target,
        chain([(0.0, first)], frames),
        options={
            "preset": "veryfast",
            "tune": "fastdecode",
            "crf": str(crf),
            "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0",
        },
    )
    return Prepared(first.shape[1], first.shape[0], num_frames=count, bytes=target.stat().st_size)


def _even(frames: Iterator[tuple[float, U8]]) -> Iterator[tuple[float, U8]]:
    """Frames without their last row or column where that makes their sides even, as 4:2:0 needs."""
    for seconds, picture in frames:
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        if min(height, width) == 0:
            raise MediaError(Reason.UNSUPPORTED, f"too narrow for a video: {picture.shape[1]}x{picture.shape[0]}")
        yield seconds, np.ascontiguousarray(picture[:height, :width])


def prepare_image(
    path: str | Path, target: Path, *, short_side: int, quality: int = 92, limits: Limits = DEFAULT_LIMITS
) -> Prepared:
    """Writes an image as an upright JPEG of the given short side. The file appears whole or not at all. MediaError."""
    picture = decode_image(path, limits, short_side)
    encoded = io.BytesIO()  # Pillow does not say why it can't write a file
    Image.fromarray(picture).save(encoded, "JPEG", quality=quality)
    with _appearing(target) as partial:
        partial.write_bytes(encoded.getbuffer())
    return Prepared(picture.shape[1], picture.shape[0], num_frames=1, bytes=target.stat().st_size)


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that becomes it when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(target)
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
