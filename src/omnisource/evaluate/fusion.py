"""Fusion of several models' predictions: the weighted mean of class probabilities (two-stream, paper section 4)."""

import math
from collections.abc import Sequence

import numpy as np

from omnisource.errors import UserError
from omnisource.evaluate.metrics import Floats, top_k_accuracy
from omnisource.evaluate.predictions import Predictions, align


def parse_weights(text: str, count: int) -> list[float]:
    """Reads `1:1.5` as one weight per table.

    Raises:
        UserError: not numbers, negative, all zero, or another number of them than tables.
    """
    try:
        weights = [float(part) for part in text.split(":")]
    except ValueError:
        raise UserError(f"--weights {text}: write numbers with colons between, for instance 1:1.5") from None
    if len(weights) != count:
        raise UserError(f"--weights {text}: {len(weights)} weights for {count} predictions tables")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise UserError(f"--weights {text}: weights are finite, not negative, and not all zero")
    return weights


def fuse(tables: Sequence[Predictions], weights: Sequence[float], name: str = "fused") -> Predictions:
    """The weighted mean of the tables' probabilities over the samples that all of them scored.

    Raises:
        UserError: the tables are about other classes or another test list.
    """
    aligned = align(tables)
    first = aligned[0]
    failed = {unscored.sample_id: unscored for table in tables for unscored in table.failed}
    return Predictions(
        name=name,
        classes=first.classes,
        sample_ids=first.sample_ids,
        labels=first.labels,
        probs=_mix([table.probs for table in aligned], weights),
        groups=first.groups,
        failed=[failed[key] for key in sorted(failed)],
        list_hash=first.list_hash,
    )


def sweep_weights(a: Predictions, b: Predictions, steps: int = 20) -> list[tuple[float, float]]:
    """(share of B in the mean, top-1) for `steps` + 1 shares from 0 to 1. Sweep on data that is not tested on."""
    a, b = align([a, b])
    shares = [step / steps for step in range(steps + 1)]
    return [(share, top_k_accuracy(_mix([a.probs, b.probs], [1 - share, share]), a.labels)) for share in shares]


def best_share(sweep: Sequence[tuple[float, float]]) -> float:
    """The share with the best top-1; of several the middle one, because a plateau's edge is the less certain place."""
    top = max(accuracy for _, accuracy in sweep)
    best = [share for share, accuracy in sweep if accuracy == top]
    return best[len(best) // 2]


def _mix(probs: Sequence[Floats], weights: Sequence[float]) -> Floats:
    total = sum(weights)
    mixed: Floats = np.sum([weight / total * p for weight, p in zip(weights, probs, strict=True)], axis=0)
    return mixed
