"""A glimpse of a whole film: few small grey frames, enough to see what moves in it and when."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omnisource.media import Limits, decode_frames

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Glimpse:
    """What to look at: frames of a piece of a file. A decoding process imports no more than this module."""

    uri: str
    indices: tuple[int, ...]
    """0 is the first frame at or after `start_s`."""
    start_s: float
    end_s: float | None
    short_side: int
    limits: Limits


def read_glimpse(glimpse: Glimpse) -> U8:
    """Grey frames (T, H, W), whole, the shorter side as asked.

    Raises:
        MediaError: the file can't be decoded within the limits.
    """
    frames = decode_frames(
        glimpse.uri,
        glimpse.indices,
        start_s=glimpse.start_s,
        end_s=glimpse.end_s,
        short_side=glimpse.short_side,
        limits=glimpse.limits,
    )
    grey: U8 = frames.mean(-1).round().astype(np.uint8)
    return grey
