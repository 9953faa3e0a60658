"""Whether two videos show the same thing happening, when single frames of them look alike.

A camera that stands still films one picture again and again, so a perceptual hash takes every scene before it for a
copy of every other. What differs is what moves: the frames less their median over time.
"""

import numpy as np
import numpy.typing as npt

from omnisource.clips import segment_test
from omnisource.curate.agree import Glance
from omnisource.curate.samples import Sample, frames_between
from omnisource.infer import Request
from omnisource.infer.parts import Part, parts_of, read_part
from omnisource.media import Limits

_FRAMES, _SIDE, _CROPS = 8, 32, 3  # three squares of a frame cover a wide one
_SAME_LENGTH = 0.02  # videos with like pictures are copies only if their lengths differ by no more
_SECONDS = 60.0  # of a video that are looked at
_NOISE = 0.5  # grey levels by which encoders change a frame that stands still
_ALIKE = 0.5  # correlation: copies that were encoded again reach 0.7 and more, other strokes on one court 0.4


def equally_long(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether videos of these lengths in seconds can be copies; one frame alone says too little about them."""
    alike: npt.NDArray[np.bool_] = np.abs(a - b) <= _SAME_LENGTH * np.maximum(a, b)
    return alike


def likeness(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """How alike the motion of two films is, -1 to 1.

    For each frame the correlation of what is not in the film's median frame; of these the median, as a fade or a black
    frame may be in one film alone. Two films without motion are alike.

    Args:
        a, b: grey (T, H, W) at equal moments.
    """
    x, y = (film.astype(np.float32) - np.median(film, 0).astype(np.float32) for film in (a, b))
    noise = _NOISE**2 * x[0].size
    xy, xx, yy = ((p * q).sum((1, 2)) + noise for p, q in ((x, y), (x, x), (y, y)))
    return float(np.median(xy / np.sqrt(xx * yy)))


def _part(sample: Sample, limits: Limits) -> Part:
    start = sample.start_s or 0.0
    end = min(start + _SECONDS, sample.end_s or sample.duration_s or np.inf)
    indices = segment_test(frames_between(sample, start, end), _FRAMES)[None]
    request = Request(sample.sample_id, sample.uri, indices, _CROPS, start_s=start)
    return next(parts_of(request, _SIDE, _SIDE, limits))


def _grey(views: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(crops, T, H, W, 3) -> (T, crops * H, W)."""
    grey: npt.NDArray[np.uint8] = views.mean(-1).round().astype(np.uint8)
    return grey.transpose(1, 0, 2, 3).reshape(_FRAMES, -1, _SIDE)


MOTION = Glance(_part, read_part, _grey, lambda a, b: likeness(a, b) >= _ALIKE)
"""24 KB of a video."""
