"""Whitened features: the space in which near-duplicates are told from things that are merely alike (paper, 3.1)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

_DIMENSIONS = 256  # kept at most
_ROWS_PER_DIMENSION = 4  # a direction is only trusted when there is data enough to estimate its spread


@dataclass(frozen=True, eq=False)
class Whitening:
    """x -> (x - mean) @ matrix, scaled to length 1."""

    mean: F32
    matrix: F32

    def __call__(self, features: npt.NDArray[np.floating]) -> F32:
        """(N, D) features as (N, d) unit vectors, whose products are cosine similarities."""
        projected = (features.astype(np.float32) - self.mean) @ self.matrix
        unit: F32 = projected / np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12)
        return unit


def fit_whitening(features: npt.NDArray[np.floating], dimensions: int = _DIMENSIONS) -> Whitening:
    """Principal directions of `features` (N, D), each scaled to unit variance; the weakest are left out.

    Directions of little variance are mostly noise that scaling would blow up, so at most `dimensions` and at most a
    quarter of N are kept.
    """
    data = features.astype(np.float64)
    mean = data.mean(axis=0)
    covariance = np.cov(data - mean, rowvar=False) if len(data) > 1 else np.eye(data.shape[1])
    values, vectors = np.linalg.eigh(covariance)
    kept = max(1, min(dimensions, len(data) // _ROWS_PER_DIMENSION, int((values > values[-1] * 1e-6).sum())))
    scale = 1 / np.sqrt(np.maximum(values[::-1][:kept], 1e-12))
    matrix = vectors[:, ::-1][:, :kept] * scale
    return Whitening(mean.astype(np.float32), np.ascontiguousarray(matrix, dtype=np.float32))
