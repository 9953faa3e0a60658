"""The moving camera that turns an image into a clip (paper, section 3.3.1).

J_1 is the image, J_i(p) = J_{i-1}(H_i p), and every H_i is drawn from one Gaussian N(mu, Sigma), the maximum-likelihood
estimate from frame-to-frame homographies of real videos (motion.py measures them, fit.py gathers them). So frame i of
the clip shows at p what the image shows at H_2 H_3 ... H_i p: the image is resampled once per frame, however long the
clip is.

The paper leaves the parametrisation open. Ours: the movements of the four corners of the middle square of the picture,
eight numbers in camera coordinates. All have the same unit and errors of the same size, where the entries of H/h33 mix
shifts, scales and perspective.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from omnisource.clips.motion import Floats, apply, from_movement, is_in_front, is_plausible
from omnisource.clips.spatial import Box
from omnisource.errors import UserError
from omnisource.tables import write_json

Mode = Literal["still", "translate-random", "translate-constant", "homography", "homography-per-class"]

MIN_PAIRS = 24  # three for each of the eight numbers: with fewer a covariance means nothing
_MAX_FILE_BYTES = 50_000_000
_REDRAWS = 20
MAX_SHRINK = 0.7  # a crop that would look over the image's border gets smaller, but not below this share of a side


@dataclass(frozen=True)
class Gaussian:
    """N(mean, covariance) of corner movements, and the number of frame pairs behind it."""

    mean: Floats  # (8,)
    covariance: Floats  # (8, 8)
    pairs: int

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """(count, 8) independent draws."""
        # The square root of the covariance by its eigenvectors: it may well be singular (cameras that only pan).
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        return np.asarray(self.mean + rng.standard_normal((count, 8)) @ root.T)


@dataclass(frozen=True)
class Camera:
    """How cameras move between frames `stride` apart: over all classes, and per class where enough pairs were seen."""

    stride: int
    overall: Gaussian
    classes: Mapping[str, Gaussian] = field(default_factory=dict)
    fps: float | None = None  # at which the stride counts; None: the frames of each file

    @property
    def identity(self) -> str:
        """A short hash of all its numbers."""
        return hashlib.sha256(json.dumps(_plain(self), sort_keys=True).encode()).hexdigest()[:16]


def fit_gaussian(movements: Floats) -> Gaussian:
    """The maximum-likelihood Gaussian of corner movements (N, 8): their mean and their covariance over N."""
    centred = movements - movements.mean(axis=0)
    return Gaussian(movements.mean(axis=0), centred.T @ centred / len(movements), len(movements))


def draw_path(
    camera: Camera | None, mode: Mode, length: int, rng: np.random.Generator, label: str | None = None
) -> Floats:
    """One camera movement of `length` frames.

    Args:
        camera: may be None for `still`.
        mode: `still`; `translate-random` (an independent shift each step) and `translate-constant` (one shift,
            repeated), the shift being the mean movement of the corners under the same Gaussian; `homography`: all
            classes share one Gaussian; `homography-per-class`: the Gaussian of `label`, or the shared one where that
            class had too few pairs.

    Returns:
        (length, 3, 3) in camera coordinates; frame i shows at p what the image shows at path[i] p. path[0] is the
        identity.

    Raises:
        ValueError: no camera, but a mode that moves it.
    """
    path = np.broadcast_to(np.eye(3), (length, 3, 3)).copy()
    if mode == "still" or length == 1:
        return path
    if camera is None:
        raise ValueError(f"mode '{mode}' needs a fitted camera")
    gaussian = camera.overall
    if mode == "homography-per-class" and label is not None:
        gaussian = camera.classes.get(label, gaussian)
    step = np.eye(3)
    for i in range(1, length):
        if i == 1 or mode != "translate-constant":
            step = _draw_step(gaussian, mode, rng)
        product = path[i - 1] @ step
        # Steps that are possible one by one may together turn the camera away: then it rests.
        path[i] = product / product[2, 2] if is_in_front(product / product[2, 2]) else path[i - 1]
    return path


def _draw_step(gaussian: Gaussian, mode: Mode, rng: np.random.Generator) -> Floats:
    for movement in gaussian.draw(_REDRAWS, rng):
        if mode.startswith("translate"):
            movement = np.tile(movement.reshape(4, 2).mean(axis=0), 4)
        step = from_movement(movement)
        if is_plausible(step):
            return step
    return np.eye(3)  # a Gaussian wider than any camera moves


def aim(width: int, height: int, box: Box, path: Floats) -> tuple[Box, npt.NDArray[np.float32]]:
    """What a moving camera needs of an image, and how each frame of the clip looks at it.

    The crop is moved, and made smaller by up to 30 % a side, until no frame looks over the image's border; when that
    is not enough the border is reflected (device.py).

    Args:
        width, height: of the image in pixels.
        box: the crop of the image that the first frame shows, as far as it can stay there.
        path: (T, 3, 3) of draw_path.

    Returns:
        The part of the image that the clip sees, and float32 (T, 3, 3) from points of a frame to points of that part,
        both in [-1, 1] from border to border: `camera` of augment.
    """
    half = max(width, height) / 2
    border = np.array([width, height]) / (2 * half)
    middle = (np.array([box.left + box.right, box.top + box.bottom]) - (width, height)) / (2 * half)
    extent = np.array([box.width, box.height]) / (2 * half)
    for factor in np.linspace(1.0, MAX_SHRINK, 7):
        size, place = extent * factor, middle
        low, high = _seen(place, size, path)
        for _ in range(3):  # the overhang changes a little when a crop under a homography moves
            if (low >= -border).all() and (high <= border).all():
                break
            # Looking over both sides: to the middle between them.
            over = np.maximum(-border - low, 0) - np.maximum(high - border, 0)
            both = (low < -border) & (high > border)
            place = np.clip(place + np.where(both, over / 2, over), size - border, border - size)
            low, high = _seen(place, size, path)
        # A tenth of a pixel over the border is not seen.
        if (low >= -border - 0.1 / half).all() and (high <= border + 0.1 / half).all():
            break
    low, high = np.maximum(low, -border), np.minimum(high, border)
    left, top = np.floor((low + border) * half + 1e-6).astype(int)
    right, bottom = np.ceil((high + border) * half - 1e-6).astype(int)
    part = Box(int(left), int(top), max(int(right), int(left) + 1), max(int(bottom), int(top) + 1))
    part_middle = (np.array([part.left + part.right, part.top + part.bottom]) - (width, height)) / (2 * half)
    part_size = np.array([part.width, part.height]) / (2 * half)
    views = np.linalg.inv(_frame_of(part_middle, part_size)) @ path @ _frame_of(place, size)
    return part, (views / views[:, 2:, 2:]).astype(np.float32)


def _frame_of(middle: Floats, half_size: Floats) -> Floats:
    """From [-1, 1] within a box to camera coordinates."""
    return np.array([[half_size[0], 0, middle[0]], [0, half_size[1], middle[1]], [0, 0, 1.0]])


def _seen(middle: Floats, half_size: Floats, path: Floats) -> tuple[Floats, Floats]:
    """The least and the greatest (x, y) that a crop sees under a path, in camera coordinates."""
    corners = middle + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half_size
    points = np.concatenate([apply(step, corners) for step in path])
    return points.min(axis=0), points.max(axis=0)


def save_camera(path: Path, camera: Camera, measured: Mapping[str, Any]) -> None:
    """Writes a camera as JSON, with what is known about its fit (`measured`), atomically."""
    content = {
        "version": 1,
        "parameters": "movements (x, y) of the corners (-.5,-.5) (.5,-.5) (.5,.5) (-.5,.5); unit: half the longer side",
        "measured": dict(measured),
    }
    write_json(path, content | _plain(camera))


def _plain(camera: Camera) -> dict[str, Any]:
    """A camera as JSON-able values."""

    def plain(gaussian: Gaussian) -> dict[str, Any]:
        return {
            "mean": gaussian.mean.tolist(),
            "covariance": gaussian.covariance.tolist(),
            "pairs": gaussian.pairs,
        }

    return {
        "stride": camera.stride,
        **({"fps": camera.fps} if camera.fps else {}),
        "overall": plain(camera.overall),
        "classes": {name: plain(gaussian) for name, gaussian in camera.classes.items()},
    }


def load_camera(path: Path, stride: int | None = None, fps: float | None = None) -> Camera:
    """Reads a camera that `save_camera` wrote.

    Args:
        stride: between the frames of the clips that it is for; None: any camera will do.
        fps: at which this stride counts; None: the frames of each file.

    Raises:
        UserError: missing, not such a file, or fitted at another stride or rate.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(f"larger than {_MAX_FILE_BYTES} bytes")
        content = json.loads(path.read_bytes())
        if content["version"] != 1:
            raise ValueError(f"version {content['version']}, this program reads version 1")
        fitted_at = int(content["stride"])
        if fitted_at < 1:
            raise ValueError(f"a stride of {fitted_at} frames")
        rate = None if content.get("fps") is None else float(content["fps"])
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"{rate} frames a second")
        overall = _gaussian(content["overall"])
        classes = {str(name): _gaussian(value) for name, value in content["classes"].items()}
    except FileNotFoundError:
        raise UserError(f"{path}: no such camera; `omnisource camera fit` writes one") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)[:200]  # some hold all of the file
        raise UserError(f"{path}: not a fitted camera ({what}); fit it again: `omnisource camera fit`") from error
    if stride is not None and (stride, fps) != (fitted_at, rate):
        raise UserError(
            f"{path}: fitted at a stride of {_spacing(fitted_at, rate)}, these clips have {_spacing(stride, fps)}; fit "
            "one with `omnisource camera fit` for these, and name it in camera.fitted"
        )
    return Camera(fitted_at, overall, classes, rate)


def _spacing(stride: int, fps: float | None) -> str:
    return f"{stride} frames" + (f" at {fps:g} a second" if fps else "")


def _gaussian(value: Mapping[str, Any]) -> Gaussian:
    mean, covariance = np.array(value["mean"], np.float64), np.array(value["covariance"], np.float64)
    if (
        mean.shape != (8,)
        or covariance.shape != (8, 8)
        or not np.isfinite(covariance).all()
        or not np.isfinite(mean).all()
    ):
        raise ValueError("a mean of 8 and a covariance of 8 x 8 finite numbers are needed")
    if not np.allclose(covariance, covariance.T) or np.linalg.eigvalsh(covariance).min() < -1e-6:
        raise ValueError("the covariance is not positive semi-definite")
    return Gaussian(mean, covariance, int(value["pairs"]))
