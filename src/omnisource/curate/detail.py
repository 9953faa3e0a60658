"""Whether two pictures with like perceptual hashes are like in what the hash does not see.

The hash sees the 64 lowest frequencies. Where those say little (a text card: a plain ground and a line of text), other
pictures have the same hash. What is left when those frequencies are taken away must then tell.
"""

import cv2
import numpy as np
import numpy.typing as npt

from omnisource.clips.glimpse import Glimpse, read_glimpse
from omnisource.curate.agree import Glance
from omnisource.curate.samples import Sample
from omnisource.media import Limits

SIDE = 64
_FREQUENCIES = 8  # of each axis, that the hash sees
_SHIFT = 4  # pixels by which a copy that was cut at an edge may be moved
_NOISE = 1.0  # grey levels that encoding changes
_POOR = 24.0  # grey levels: the median of those frequencies, where they say little; photographs have more than 26
_ALIKE = 0.88  # correlation: encoded badly or a third as large they reach 0.97, other texts on one ground 0.83

_DCT = np.cos(np.pi / SIDE * (np.arange(SIDE)[None] + 0.5) * np.arange(_FREQUENCIES)[:, None])
_DCT *= np.sqrt(np.where(np.arange(_FREQUENCIES) == 0, 1, 2) / SIDE)[:, None]  # rows of length 1


def _glance(sample: Sample, limits: Limits) -> Glimpse:
    """What is read of a picture."""
    return Glimpse(sample.uri, (0,), 0.0, None, SIDE, limits)


def _small(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Grey frames (1, H, W), of which the first is kept as (64, 64)."""
    return np.asarray(cv2.resize(frames[0], (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def likeness(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """Correlation, -1 to 1, of what the hash does not see of two grey (64, 64) pictures, where they fit best.

    Two pictures without detail are alike.
    """
    first, second = _detail(a)[_SHIFT:-_SHIFT, _SHIFT:-_SHIFT], _detail(b)
    noise = _NOISE**2 * first.size
    products = cv2.matchTemplate(second, np.ascontiguousarray(first), cv2.TM_CCORR)
    squares = cv2.matchTemplate(second * second, np.ones_like(first), cv2.TM_CCORR)
    return float(((products + noise) / np.sqrt((float((first**2).sum()) + noise) * (squares + noise))).max())


def agree(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> bool:
    """Whether two pictures with like hashes, grey and (64, 64), may be one."""
    return (_told(a) >= _POOR and _told(b) >= _POOR) or likeness(a, b) >= _ALIKE


def _told(picture: npt.NDArray[np.uint8]) -> float:
    """How much the hash sees of a picture, in grey levels."""
    return float(np.median(np.abs(_DCT @ picture.astype(np.float64) @ _DCT.T).ravel()[1:]))


def _detail(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    grey = picture.astype(np.float64)
    return np.asarray(grey - _DCT.T @ (_DCT @ grey @ _DCT.T) @ _DCT, np.float32)


DETAIL = Glance(_glance, read_glimpse, _small, agree)
"""4 KB of an image."""
