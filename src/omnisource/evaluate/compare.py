"""A paired test of two models on the same samples: is the one really better?"""

import math
from dataclasses import dataclass

import numpy as np

from omnisource.evaluate.metrics import (
    Floats,
    Interval,
    bootstrap_interval,
    group_sums,
    hits_at,
    mean_class_accuracy,
    per_class_accuracy,
)
from omnisource.evaluate.predictions import Predictions, align

_FLIPS = 10_000
_BLOCK = 1_000_000  # signs drawn at a time


@dataclass(frozen=True)
class ClassChange:
    """Recall of one class under both models."""

    samples: int
    a: float
    b: float


@dataclass(frozen=True)
class Comparison:
    """Top-1 of B against A over the samples that both scored. Differences are B minus A."""

    a: str
    b: str
    samples: int
    left_out: int  # samples of the list that only one of them, or neither, scored
    groups: int  # independent groups of samples
    top1_a: float
    top1_b: float
    difference: float
    interval: Interval  # paired bootstrap over groups
    p_flip: float  # two-sided sign-flip test over groups
    p_mcnemar: float  # two-sided exact McNemar test; takes samples as independent
    only_a: int  # samples that A alone gets right
    only_b: int
    mean_class_difference: float
    per_class: dict[str, ClassChange]


def compare(a: Predictions, b: Predictions, *, resamples: int = 2000, seed: int = 0) -> Comparison:
    """Compares two models sample by sample.

    Raises:
        UserError: the two are about other classes or another test list.
    """
    listed = len(a.sample_ids) + len(a.failed)
    a, b = align([a, b])
    hits_a, hits_b = hits_at(a.probs, a.labels, 1), hits_at(b.probs, b.labels, 1)
    change = hits_b - hits_a
    sums, sizes = group_sums(change, a.groups)
    only_a, only_b = int((change < 0).sum()), int((change > 0).sum())
    recall_a, recall_b = per_class_accuracy(a.probs, a.labels), per_class_accuracy(b.probs, b.labels)
    counts = np.bincount(a.labels, minlength=len(a.classes))
    return Comparison(
        a=a.name,
        b=b.name,
        samples=len(change),
        left_out=listed - len(change),
        groups=len(sizes),
        top1_a=float(hits_a.mean()),
        top1_b=float(hits_b.mean()),
        difference=float(change.mean()),
        interval=bootstrap_interval(change, groups=a.groups, resamples=resamples, seed=seed),
        p_flip=sign_flip_test(sums, seed=seed),
        p_mcnemar=mcnemar_test(only_a, only_b),
        only_a=only_a,
        only_b=only_b,
        mean_class_difference=mean_class_accuracy(b.probs, b.labels) - mean_class_accuracy(a.probs, a.labels),
        per_class={
            name: ClassChange(int(counts[n]), float(recall_a[n]), float(recall_b[n]))
            for n, name in enumerate(a.classes)
            if counts[n]
        },
    )


def sign_flip_test(changes: Floats, *, seed: int = 0) -> float:
    """Two-sided p of "the changes (N,) of independent groups are symmetric around zero"; exact for few groups."""
    changes = changes[changes != 0]
    if not len(changes):
        return 1.0
    if 2 ** len(changes) <= _FLIPS:
        bits = np.arange(2 ** len(changes))[:, None] >> np.arange(len(changes))
        totals = ((bits & 1) * 2 - 1) @ changes
        return float(np.mean(np.abs(totals) >= abs(changes.sum()) - 1e-9))
    random = np.random.default_rng(seed)
    observed = abs(float(changes.sum())) - 1e-9
    beyond, block = 0, max(1, _BLOCK // len(changes))
    for first in range(0, _FLIPS, block):
        signs = random.integers(0, 2, (min(block, _FLIPS - first), len(changes)), np.int8) * 2 - 1
        beyond += int((np.abs(signs @ changes) >= observed).sum())
    return (beyond + 1) / (_FLIPS + 1)  # the observed signs are one of the possible ones


def mcnemar_test(only_a: int, only_b: int) -> float:
    """Two-sided exact McNemar test: `only_a` of the samples are right under A alone, `only_b` under B alone."""
    total = only_a + only_b
    # log of Binomial(total, 1/2), so that thousands of discordant samples do not overflow.
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(min(only_a, only_b) + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(value) for value in logs))
