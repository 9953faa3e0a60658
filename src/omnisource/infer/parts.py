"""What a decoding process does: it reads some clips of a file. This module is all that such a process imports."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omnisource.clips import read_views
from omnisource.media import Limits, MediaError, Reason
from omnisource.media.source import open_source

_PART_BYTES = 16 * 1024**2  # pixels that travel from a process at once; a bigger request comes in parts


@dataclass(frozen=True, eq=False)
class Request:
    """Views of one piece of one file. Build the clips with `clips.dense_test` or `clips.segment_test`."""

    key: Hashable
    """What the caller knows it by."""
    uri: str
    clips: npt.NDArray[np.int64]
    """(K, T) frame indices, 0 being the first frame at or after `start_s`. An image: [[0]]."""
    crops: int = 1
    """1, 3, 5 or 10 squares of each clip."""
    start_s: float = 0.0
    end_s: float | None = None
    length: int | None = None
    """With T = 1: frames into which the picture is repeated, so that a 3D network can look at an image."""
    flip: bool = False
    """Mirror left and right."""
    bytes: int | None = None
    """The file's size when its length was found. With another it is another file: its views fail as `changed`."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some clips of a request, small enough to travel; see Request."""

    uri: str
    first: int
    """Number of the request's clips before these."""
    clips: npt.NDArray[np.int64]
    crops: int
    size: int
    short_side: int
    start_s: float
    end_s: float | None
    limits: Limits
    bytes: int | None = None
    flow: bool = False
    """The pixels are displacements."""


def parts_of(request: Request, size: int, short_side: int, limits: Limits, flow: bool = False) -> Iterator[Part]:
    """Cuts a request into parts, in order."""
    if request.clips.ndim != 2 or not request.clips.size:
        raise ValueError(f"clips must be (K, T) frame indices, got {request.clips.shape}")
    count, length = request.clips.shape
    each = max(1, _PART_BYTES // (request.crops * length * size * size * 3))
    for first in range(0, count, each):
        clips = request.clips[first : first + each]
        where = (request.start_s, request.end_s)
        yield Part(request.uri, first, clips, request.crops, size, short_side, *where, limits, request.bytes, flow)


def read_part(part: Part) -> npt.NDArray[np.uint8]:
    """The pixels of a part, (clips * crops, T, size, size, 3)."""
    if part.bytes is not None and part.first == 0:
        found = open_source(part.uri, part.limits.max_bytes).bytes
        if found != part.bytes:
            raise MediaError(Reason.CHANGED, f"{part.uri} has {found} bytes, it had {part.bytes} when it was probed")
    return read_views(
        part.uri,
        part.clips,
        crops=part.crops,
        size=part.size,
        short_side=part.short_side,
        start_s=part.start_s,
        end_s=part.end_s,
        flow=part.flow,
        limits=part.limits,
    )
