"""Accuracy, calibration and intervals of predictions. Plain NumPy; shares are in [0, 1].

Throughout, `probs` is float (N, K): row n holds the K class probabilities of sample n; `labels` is int (N,). Of equal
probabilities the class of lower index counts as the better one.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisource.errors import UserError

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Interval = tuple[float, float]

LEVEL = 0.95  # of every interval
_ECE_BINS = 15  # Guo et al., "On calibration of modern neural networks"


@dataclass(frozen=True)
class ClassResult:
    """How one class fares: its test samples, the share that was recognised, how often it was predicted."""

    samples: int
    accuracy: float | None  # None: the class has no test sample
    predicted: int


@dataclass(frozen=True)
class Metrics:
    """Everything that is said about one set of predictions."""

    samples: int
    top1: float
    top5: float  # with fewer than six classes this is 1 by definition
    mean_class: float  # mean of the accuracies of the classes that have samples
    ece: float  # expected calibration error of the best class's probability
    top1_interval: Interval  # bootstrap over samples, or over groups of samples
    per_class: dict[str, ClassResult]
    confusion: list[list[int]]  # row: true class, column: predicted class

    def as_counts(self) -> dict[str, Any]:
        """As JSON-able values for a stage record, without the confusion, which is large."""
        counts = asdict(self)
        del counts["confusion"]
        return counts


def measure(
    probs: Floats,
    labels: Ints,
    classes: Sequence[str],
    *,
    groups: Sequence[str | None] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Metrics:
    """All metrics of one set of predictions.

    Args:
        probs: (N, K).
        labels: (N,).
        classes: the K class names.
        groups: of each sample, the film or place it comes from; samples of one group are resampled together, because
            they are not independent. None, or None for a sample: it is its own group.
        bootstrap: resamples for the interval; 0: the interval is (top1, top1).
        seed: of the resampling.
    """
    _check(probs, labels, len(classes))
    hits = hits_at(probs, labels, 1)
    matrix = confusion(probs, labels)
    recall = per_class_accuracy(probs, labels)
    per_class = {
        name: ClassResult(
            samples=int(matrix[index].sum()),
            accuracy=None if math.isnan(recall[index]) else float(recall[index]),
            predicted=int(matrix[:, index].sum()),
        )
        for index, name in enumerate(classes)
    }
    return Metrics(
        samples=len(labels),
        top1=float(hits.mean()),
        top5=float(hits_at(probs, labels, 5).mean()),
        mean_class=mean_class_accuracy(probs, labels),
        ece=calibration_error(probs, labels),
        top1_interval=bootstrap_interval(hits, groups=groups, resamples=bootstrap, seed=seed),
        per_class=per_class,
        confusion=matrix.tolist(),
    )


def hits_at(probs: Floats, labels: Ints, k: int) -> Floats:
    """(N,) 1.0 where the label is among the k most probable classes, else 0.0."""
    order = np.argsort(-probs, axis=1, kind="stable")[:, :k]
    hits: Floats = (order == labels[:, None]).any(axis=1).astype(np.float64)
    return hits


def top_k_accuracy(probs: Floats, labels: Ints, k: int = 1) -> float:
    """Share of samples whose label is among the k most probable classes."""
    return float(hits_at(probs, labels, k).mean())


def confusion(probs: Floats, labels: Ints) -> Ints:
    """(K, K) counts; row: true class, column: predicted class."""
    classes = probs.shape[1]
    cells = labels * classes + probs.argmax(axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class_accuracy(probs: Floats, labels: Ints) -> Floats:
    """(K,) share of each class's samples that were recognised; NaN for a class without samples."""
    matrix = confusion(probs, labels)
    totals = matrix.sum(axis=1)
    recall = np.full(len(totals), np.nan)
    np.divide(matrix.diagonal(), totals, out=recall, where=totals > 0)
    return recall


def mean_class_accuracy(probs: Floats, labels: Ints) -> float:
    """Mean of the per-class accuracies over the classes that have samples."""
    return float(np.nanmean(per_class_accuracy(probs, labels)))


def calibration_error(probs: Floats, labels: Ints) -> float:
    """Expected calibration error: |accuracy - confidence| in equally wide bins of confidence, weighted by samples."""
    confidence = probs.max(axis=1).astype(np.float64)
    hit = hits_at(probs, labels, 1)
    # A bin holds its right edge, (0, 1 / 15], as in the usual implementations.
    index = np.clip(np.ceil(confidence * _ECE_BINS).astype(int) - 1, 0, _ECE_BINS - 1)
    gap = np.bincount(index, weights=hit - confidence, minlength=_ECE_BINS)
    return float(np.abs(gap).sum() / len(labels))


def bootstrap_interval(
    values: Floats,
    *,
    groups: Sequence[str | None] | None = None,
    weights: Floats | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the mean of `values` (N,), resampling whole groups where they are given.

    Args:
        weights: (N,) of the values in every mean; None: all alike.
    """
    if resamples == 0:
        mean = float(np.average(values, weights=weights))
        return mean, mean
    sums, sizes = group_sums(values, groups, weights)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    for index in range(resamples):  # one at a time: N may be 20,000
        drawn = random.integers(0, len(sums), len(sums))
        means[index] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def group_sums(
    values: Floats, groups: Sequence[str | None] | None, weights: Floats | None = None
) -> tuple[Floats, Floats]:
    """Per group: the sum of its weighted values and its weight, without weights its size.

    A sample without a group is a group of its own.
    """
    weights = np.ones(len(values)) if weights is None else weights
    values = np.asarray(values * weights, np.float64)
    if groups is None:
        return values, weights
    names = [f"group {name}" if name is not None else f"alone {index}" for index, name in enumerate(groups)]
    _, index = np.unique(names, return_inverse=True)
    return np.bincount(index, weights=values).astype(np.float64), np.bincount(index, weights=weights).astype(np.float64)


def t_interval(values: Sequence[float], within: Interval = (-math.inf, math.inf)) -> Interval | None:
    """Student's t interval of the mean of a few runs (seeds, folds), cut to `within`; None for fewer than two."""
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    half = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return max(mean - half, within[0]), min(mean + half, within[1])


def t_quantile(freedom: int) -> float:
    """The t for which |Student's t| <= t with probability `LEVEL`."""
    low, high = 0.0, 1e6
    while high - low > 1e-9 * max(high, 1.0):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_probability(middle, freedom) < LEVEL else (low, middle)
    return (low + high) / 2


def _t_probability(t: float, freedom: int) -> float:
    # P(|T| <= t) for whole degrees of freedom: Abramowitz and Stegun, 26.7.3 and 26.7.4.
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for step in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (step - 1) / step
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _check(probs: Floats, labels: Ints, classes: int) -> None:
    if probs.ndim != 2 or probs.shape[1] != classes:
        raise UserError(f"predictions: {probs.shape[-1]} probabilities a sample, but {classes} classes")
    if not len(labels):
        raise UserError("predictions: no sample was scored, so there is nothing to measure; see the `reason` column")
    if not np.isfinite(probs).all():
        raise UserError("predictions: some probabilities are not finite; the network's weights or input are broken")
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"predictions: a label lies outside the {classes} classes")
