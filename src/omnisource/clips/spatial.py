"""Which part of a frame a network sees: random in training, fixed crops in testing."""

import math
from dataclasses import dataclass

import numpy as np

_ASPECTS = (3 / 4, 4 / 3)  # width / height of a random crop
_TRIES = 10


@dataclass(frozen=True)
class Box:
    """A part of an upright frame in pixels; `right` and `bottom` are the first column and row outside of it."""

    left: int
    top: int
    right: int
    bottom: int
    mirrored: bool = False

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top


def random_resized_crop(width: int, height: int, min_area: float, rng: np.random.Generator) -> Box:
    """A box of random area, aspect and place in a frame of `width` x `height` (training).

    The area is uniform in [min_area, 1] of the frame, the aspect log-uniform in [3/4, 4/3]. When ten draws don't
    fit into the frame the box is the centred square.
    """
    low, high = np.log(_ASPECTS)
    for _ in range(_TRIES):
        area = width * height * rng.uniform(min_area, 1.0)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return Box(left, top, left + w, top + h)
    return view_boxes(width, height, min(width, height), 1)[0]


def view_boxes(width: int, height: int, size: int, crops: int) -> list[Box]:
    """The square crops of the test protocol from a frame that is already scaled to `width` x `height`.

    Args:
        width, height: of the scaled frame, in pixels.
        size: side of a crop; a smaller frame gives squares as large as it allows.
        crops: 1 (centre), 3 (both ends and the middle of the longer side), 5 (corners and centre) or 10 (those five,
            each followed by its mirror image). ValueError for another number.
    """
    size = min(size, width, height)
    # Centres are whole multiples of a rounded step, as in the reference implementation.
    if crops == 1:
        return [_square((width - size) // 2, (height - size) // 2, size)]
    if crops == 3:
        x, y = (width - size) // 2, (height - size) // 2
        if width >= height:
            return [_square(left, y, size) for left in (0, 2 * x, x)]
        return [_square(x, top, size) for top in (0, 2 * y, y)]
    if crops in (5, 10):
        x, y = (width - size) // 4, (height - size) // 4
        places = [(0, 0), (4 * x, 0), (0, 4 * y), (4 * x, 4 * y), (2 * x, 2 * y)]
        mirrors = (False, True) if crops == 10 else (False,)
        return [_square(left, top, size, mirrored) for left, top in places for mirrored in mirrors]
    raise ValueError(f"crops must be 1, 3, 5 or 10, got {crops}")


def _square(left: int, top: int, size: int, mirrored: bool = False) -> Box:
    return Box(left, top, left + size, top + size, mirrored)
