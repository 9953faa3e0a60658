"""Optical flow between frames, and its 8-bit form."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from omnisource.errors import UserError

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Method = Literal["tvl1", "dis", "raft"]
ZERO = 128  # the byte of "no motion"


@dataclass(frozen=True)
class Estimator:
    """A method of flow. `prepare` is called once a frame; `estimate` takes two prepared frames and gives float32
    (H, W, 2), or a larger field of which the first H rows and W columns are the frame's."""

    prepare: Callable[[U8], Any]
    estimate: Callable[[Any, Any], F32]


def flow_of_frames(frames: Iterable[U8], estimator: Estimator) -> Iterator[F32]:
    """Flow from each frame to the next.

    Args:
        frames: uint8 (H, W, 3) RGB, all of one size.
        estimator: see `estimator_of`.

    Yields:
        float32 (H, W, 2): displacement in pixels, x (right is positive) then y (down). One frame alone yields zeros.
    """
    before: Any = None
    count = 0
    for frame in frames:
        count += 1
        height, width = frame.shape[:2]
        prepared = estimator.prepare(frame)
        if before is not None:
            yield estimator.estimate(before, prepared)[:height, :width]
        before = prepared
    if count == 1:
        yield np.zeros((height, width, 2), np.float32)


def to_bytes(flow: F32, bound: float) -> U8:
    """Displacements in pixels as bytes: [-bound, bound] to [0, 255], clipped. Same shape."""
    stored: U8 = np.clip(np.rint((flow + bound) * (255 / (2 * bound))), 0, 255).astype(np.uint8)
    return stored


def to_pixels(stored: U8, bound: float) -> F32:
    """The inverse of `to_bytes`, up to rounding (bound / 255) and clipping."""
    return stored.astype(np.float32) * np.float32(2 * bound / 255) - np.float32(bound)


def estimator_of(method: Method, weights: Path | None = None, device: str = "auto") -> Estimator:
    """The method of that name.

    Args:
        method: `tvl1` (Zach et al., 2007; OpenCV's parameters), `dis` (Kroeger et al., 2016; preset medium) or `raft`
            (Teed and Deng, 2020).
        weights, device: of `raft`.

    Raises:
        UserError: what the method needs is not installed, or the weights are none of its.
    """
    if method == "raft":
        from omnisource.flow.raft import load_raft  # torch takes seconds, and the other methods do without

        if weights is None:
            raise UserError("flow.method raft: give its weights as flow.weights=FILE; none are downloaded")
        raft = load_raft(weights, device)
        return Estimator(raft.prepare, raft.estimate)
    if method == "dis":
        dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return Estimator(_grey, lambda before, after: np.asarray(dis.calc(before, after, None), np.float32))
    if not hasattr(cv2, "optflow"):
        raise UserError(
            "flow.method tvl1: this OpenCV lacks its contributed modules; "
            "`pip uninstall opencv-python-headless && pip install opencv-contrib-python-headless`, or use dis"
        )
    tvl1: Any = cv2.optflow.createOptFlow_DualTVL1()
    return Estimator(_grey, lambda before, after: np.asarray(tvl1.calc(before, after, None), np.float32))


def _grey(frame: U8) -> U8:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
