"""Writing frames as a video."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
_TICKS = 90_000  # time stamps a second


def partial_of(path: Path) -> Path:
    """Where the file `path` lies while it is written; a process that is killed leaves it there."""
    return path.with_name(f".{path.stem}.part{path.suffix}")


def write_video(
    path: Path,
    frames: Iterable[tuple[float, U8]],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: Mapping[str, str],
) -> int:
    """Writes frames with their own times; the file appears whole or not at all.

    Args:
        path: its suffix names the container.
        frames: (seconds, uint8 (H, W, 3) RGB), ascending, all of one size with even sides.
        codec, pixels, options: encoder, its pixel format and its options, e.g. `crf` and `g`; no B-frames are made.

    Returns:
        The number of frames written. Nothing is written for none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    count, last = 0, -1
    try:
        with av.open(str(partial), "w") as container:
            stream = None
            for seconds, picture in frames:
                if stream is None:
                    stream = container.add_stream(codec, rate=25, options={"bf": "0", **options})
                    stream.height, stream.width = picture.shape[:2]
                    stream.pix_fmt = pixels
                    stream.codec_context.time_base = Fraction(1, _TICKS)
                    stream.codec_context.thread_count = 1  # videos are what runs in parallel
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                last = frame.pts = max(round(seconds * _TICKS), last + 1)
                frame.time_base = Fraction(1, _TICKS)
                container.mux(stream.encode(frame))
                count += 1
            if stream is not None:
                container.mux(stream.encode(None))
        if count:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count
