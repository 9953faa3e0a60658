"""The camera: where a point of the world falls in the picture, and how a hand-held camera moves."""

import math
from dataclasses import dataclass

import numpy as np

from omnisource.demo.poses import Array


@dataclass(frozen=True)
class View:
    """A camera on a tripod that looks along -z at the origin from `distance` metres.

    `width` and `height` are those of the picture in (supersampled) pixels; `horizon` is its row as a share of the
    height, `tall` the share of the height that a person of 1.7 m at the origin fills.
    """

    width: int
    height: int
    horizon: float = 0.4
    tall: float = 0.72
    distance: float = 5.0
    eye_height: float = 1.15

    @property
    def pixels_per_metre(self) -> float:
        return self.tall * self.height / 1.7

    def project(self, points: Array) -> tuple[Array, Array]:
        """World points (..., 3) to pixels (..., 2) and pixels per metre (...) there."""
        depth = np.maximum(self.distance - points[..., 2], 0.5)
        scale = self.pixels_per_metre * self.distance / depth
        column = self.width / 2 + scale * points[..., 0]
        row = self.horizon * self.height + scale * (self.eye_height - points[..., 1])
        return np.stack([column, row], axis=-1), scale


@dataclass(frozen=True)
class CameraMove:
    """Pan as a share of the picture's size over the whole shot, zoom as a factor, shake in degrees and share."""

    pan: tuple[float, float] = (0.0, 0.0)
    zoom: tuple[float, float] = (1.0, 1.0)
    shake: float = 0.0
    seed: int = 0

    def matrices(self, view: View, frames: int, fps: float) -> Array:
        """Affine maps (T, 2, 3) from the tripod's picture to the moving camera's, in pixels."""
        along = np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)
        eased = along * along * (3 - 2 * along)
        zoom = self.zoom[0] + (self.zoom[1] - self.zoom[0]) * eased
        rng = np.random.default_rng([self.seed, 77])
        seconds = np.arange(frames) / fps
        tremor = np.zeros((3, frames))
        for hertz in (0.6, 1.3, 2.9):
            phases = rng.uniform(0, 2 * math.pi, 3)[:, None]
            tremor += np.sin(2 * math.pi * hertz * seconds + phases) / (1 + hertz)
        angle = np.radians(1.6 * self.shake * tremor[0])
        shift_x = view.width * (self.pan[0] * (eased - 0.5) + 0.018 * self.shake * tremor[1])
        shift_y = view.height * (self.pan[1] * (eased - 0.5) + 0.018 * self.shake * tremor[2])
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        centre_x, centre_y = view.width / 2, view.height / 2
        maps = np.empty((frames, 2, 3))
        maps[:, 0] = np.stack([cos, -sin, centre_x - cos * centre_x + sin * centre_y + shift_x], axis=-1)
        maps[:, 1] = np.stack([sin, cos, centre_y - sin * centre_x - cos * centre_y + shift_y], axis=-1)
        return maps
