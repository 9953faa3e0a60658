"""How the camera moved between two frames of a real video.

Points are given in *camera coordinates*: the origin is the middle of the picture, one unit is half its longer side,
x to the right and y down. So neither the size of a picture nor its aspect changes what a rotation or a shift is.
"""

from enum import StrEnum

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

WORKING_SIDE = 320  # longer side of the pictures that are compared, in pixels; smaller ones stay as they are
_FEATURES = 600
_RATIO = 0.8  # a match must be this much better than the second best (Lowe's ratio test)
_TOLERANCE = 1.5  # pixels between a point and where the homography puts it
_MIN_INLIERS = 16
_MIN_SHARE = 0.25  # of the matches
_MIN_COVER = 0.15  # of the picture's area, by the hull of the inliers: beyond it the homography is extrapolation
MAX_STEP = 0.5  # camera coordinates that a corner of the middle square may move in one step


class Miss(StrEnum):
    """Why a pair of frames gave no homography."""

    FEW_POINTS = "few_points"  # too little texture, or nothing in common (a cut)
    DISAGREE = "disagree"  # no homography explains enough of the matches
    NARROW = "narrow"  # the matches that agree lie in a small part of the picture
    TOO_FAR = "too_far"  # a jump no camera makes in one step
    WORSE = "worse"  # undoing the found motion makes the pictures less alike


def homography(earlier: U8, later: U8) -> Floats | Miss:
    """Estimates where the points of `later` were in `earlier`.

    Args:
        earlier, later: uint8 (H, W, 3) RGB.

    Returns:
        (3, 3) with H[2, 2] = 1, in camera coordinates: a point p of `later` shows what H p shows in `earlier`.
    """
    first, second = _small_grey(earlier), _small_grey(later)
    source, target = _matches(second, first)
    if len(source) < _MIN_INLIERS:
        return Miss.FEW_POINTS
    cv2.setRNGSeed(0)  # the same pair gives the same homography
    found, mask = cv2.findHomography(source, target, cv2.USAC_MAGSAC, _TOLERANCE, maxIters=2000, confidence=0.999)
    inside = mask[:, 0].astype(bool) if mask is not None else np.zeros(len(source), bool)
    if found is None or inside.sum() < max(_MIN_INLIERS, _MIN_SHARE * len(source)):
        return Miss.DISAGREE
    if cv2.contourArea(cv2.convexHull(source[inside])) < _MIN_COVER * second.size:
        return Miss.NARROW
    height, width = second.shape
    half = max(width, height) / 2
    # Pixel index -> camera coordinates; the middle of pixel 0 is half a pixel from the border.
    to_camera = np.array([[1 / half, 0, (0.5 - width / 2) / half], [0, 1 / half, (0.5 - height / 2) / half], [0, 0, 1]])
    steps = to_camera @ found @ np.linalg.inv(to_camera)
    steps = steps / steps[2, 2]
    if not is_plausible(steps):
        return Miss.TOO_FAR
    if not _explains(first, second, found):
        return Miss.WORSE
    return np.asarray(steps, np.float64)


# The middle square, whose corners' movements are the eight numbers of a homography.
CORNERS = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])


def to_movement(step: Floats) -> Floats:
    """The homography (3, 3) as (8,): how far the corners of the middle square move (x, y of each, clockwise)."""
    return np.asarray((apply(step, CORNERS) - CORNERS).reshape(8))


def from_movement(movement: Floats) -> Floats:
    """The inverse of `to_movement`: (8,) to (3, 3) with H[2, 2] = 1."""
    target = CORNERS + movement.reshape(4, 2)
    rows: list[list[float]] = []  # eight linear equations, two a corner
    for (x, y), (u, v) in zip(CORNERS, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), target.reshape(8)), 1.0).reshape(3, 3)


def apply(step: Floats, points: Floats) -> Floats:
    """Where a homography (3, 3) sends points (N, 2)."""
    moved = points @ step[:, :2].T + step[:, 2]
    return np.asarray(moved[:, :2] / moved[:, 2:])


def is_in_front(step: Floats) -> bool:
    """Nothing that a picture can hold comes to lie beside or behind the camera."""
    square = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1.0]])
    return bool((square @ step[2] > 0.2).all())


def is_plausible(step: Floats) -> bool:
    """A camera can move like this in one step: no corner far away, nothing turned inside out or behind it."""
    return (
        bool(np.isfinite(step).all())
        and is_in_front(step)
        and bool(np.linalg.det(step) > 0)
        and float(np.abs(apply(step, CORNERS) - CORNERS).max()) <= MAX_STEP
    )


def _small_grey(frame: U8) -> U8:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    scale = WORKING_SIDE / max(grey.shape)
    if scale >= 1:
        return np.asarray(grey)
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA))


def _matches(source: U8, target: U8) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Points (N, 2) of `source` and where the same things are in `target`, in pixels; with wrong ones among them."""
    sift = cv2.SIFT.create(nfeatures=_FEATURES, contrastThreshold=0.02)
    points_a, words_a = sift.detectAndCompute(source, None)
    points_b, words_b = sift.detectAndCompute(target, None)
    if words_a is None or words_b is None or len(words_b) < 2:
        return np.empty((0, 2), np.float32), np.empty((0, 2), np.float32)
    pairs = cv2.BFMatcher().knnMatch(words_a, words_b, k=2)
    good = [best for best, second in pairs if best.distance < _RATIO * second.distance]
    return (
        np.array([points_a[m.queryIdx].pt for m in good], np.float32).reshape(-1, 2),
        np.array([points_b[m.trainIdx].pt for m in good], np.float32).reshape(-1, 2),
    )


def _explains(earlier: U8, later: U8, found: Floats) -> bool:
    """Whether `earlier` seen through the homography is at least as much like `later` as without it."""
    a, b = (cv2.GaussianBlur(picture, (0, 0), 2).astype(np.float32) for picture in (earlier, later))
    size = (later.shape[1], later.shape[0])
    # found maps later to earlier, which is what WARP_INVERSE_MAP asks for.
    moved = cv2.warpPerspective(a, found, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    seen = cv2.warpPerspective(np.ones_like(a), found, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) > 0.99
    if seen.mean() < _MIN_COVER:
        return False
    still = np.abs(a - b)[seen].mean()
    # Resampling and compression alone differ by half a grey level; a camera at rest must not fail for that.
    return bool(np.abs(moved - b)[seen].mean() <= 1.05 * still + 0.5)
