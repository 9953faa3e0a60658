"""Optical flow between frames, and its 8-bit form."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from omnisource.errors import UserError

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Method = Literal["tvl1", "dis"]
ZERO = 128  # the byte of "no motion"


def flow_of_frames(frames: Iterable[U8], method: Method) -> Iterator[F32]:
    """Flow from each frame to the next.

    Args:
        frames: uint8 (H, W, 3) RGB, all of one size.
        method: `tvl1` (Zach et al., 2007; OpenCV's parameters) or `dis` (Kroeger et al., 2016; preset medium).

    Yields:
        float32 (H, W, 2): displacement in pixels, x (right is positive) then y (down). One frame alone yields zeros.
    """
    estimate = _estimator(method)
    before: U8 | None = None
    count = 0
    for frame in frames:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if before is not None:
            yield estimate(before, grey)
            count += 1
        before = grey
    if before is not None and count == 0:
        yield np.zeros((*before.shape, 2), np.float32)


def to_bytes(flow: F32, bound: float) -> U8:
    """Displacements in pixels as bytes: [-bound, bound] to [0, 255], clipped. Same shape."""
    stored: U8 = np.clip(np.rint((flow + bound) * (255 / (2 * bound))), 0, 255).astype(np.uint8)
    return stored


def to_pixels(stored: U8, bound: float) -> F32:
    """The inverse of `to_bytes`, up to rounding (bound / 255) and clipping."""
    return stored.astype(np.float32) * np.float32(2 * bound / 255) - np.float32(bound)


def _estimator(method: Method) -> Callable[[U8, U8], F32]:
    if method == "dis":
        dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return lambda before, after: np.asarray(dis.calc(before, after, None), np.float32)
    if not hasattr(cv2, "optflow"):
        raise UserError(
            "flow.method tvl1: this OpenCV lacks its contributed modules; "
            "`pip uninstall opencv-python-headless && pip install opencv-contrib-python-headless`, or use dis"
        )
    tvl1: Any = cv2.optflow.createOptFlow_DualTVL1()
    return lambda before, after: np.asarray(tvl1.calc(before, after, None), np.float32)
