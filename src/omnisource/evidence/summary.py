"""What the cells amount to: means over folds and seeds, paired gains, intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omnisource.evaluate.metrics import Interval, t_interval
from omnisource.evidence.cells import Cell
from omnisource.evidence.variants import Variant


@dataclass(frozen=True)
class Row:
    """A variant on a track. Accuracies and gains in points of top-1; intervals of 95 %."""

    track: str
    variant: str
    question: str
    against: str
    paper: str
    folds: int
    seeds: int
    tested: int  # samples, all folds together
    top1: float
    top1_interval: Interval | None  # Student's t over folds x seeds
    gain: float | None  # mean paired difference to `against`
    gain_interval: Interval | None  # Student's t over folds x seeds
    gain_interval_folds: Interval | None  # Student's t over folds, seeds averaged: fewer, but independent
    by_fold: list[float]  # gains, seeds averaged
    target_clips_seen: float
    web_units: dict[str, float]
    precision: dict[str, float]
    recall: dict[str, float]

    @property
    def significant(self) -> bool:
        """Whether the gain's interval is clear of zero."""
        return self.gain_interval is not None and (self.gain_interval[0] > 0 or self.gain_interval[1] < 0)


def summarise(cells: Sequence[Cell], variants: Sequence[Variant]) -> list[Row]:
    """One row a variant, in their order; cells are of one track."""
    top1 = {(cell.variant, cell.fold, cell.seed): 100 * cell.top1 for cell in cells}
    rows = []
    for variant in variants:
        mine = [cell for cell in cells if cell.variant == variant.name]
        if not mine:
            continue
        pairs = [
            (cell.fold, top1[variant.name, cell.fold, cell.seed] - top1[variant.against, cell.fold, cell.seed])
            for cell in mine
            if variant.name != variant.against and (variant.against, cell.fold, cell.seed) in top1
        ]
        folds = sorted({cell.fold for cell in mine})
        by_fold = [float(np.mean([gain for fold, gain in pairs if fold == one])) for one in folds] if pairs else []
        gains = [gain for _, gain in pairs]
        each = [100 * cell.top1 for cell in mine]
        rows.append(
            Row(
                track=mine[0].track,
                variant=variant.name,
                question=variant.question,
                against=variant.against if pairs else "",
                paper=variant.paper,
                folds=len(folds),
                seeds=len({cell.seed for cell in mine}),
                tested=sum(cell.tested for cell in mine if cell.seed == mine[0].seed),
                top1=float(np.mean(each)),
                top1_interval=t_interval(each),
                gain=float(np.mean(gains)) if gains else None,
                gain_interval=t_interval(gains) if gains else None,
                gain_interval_folds=t_interval(by_fold) if by_fold else None,
                by_fold=by_fold,
                target_clips_seen=float(np.mean([cell.target_clips_seen for cell in mine])),
                web_units=_means([cell.web_units for cell in mine]),
                precision=_means([cell.precision for cell in mine]),
                recall=_means([cell.recall for cell in mine]),
            )
        )
    return rows


def _means(found: Sequence[dict[str, float]] | Sequence[dict[str, int]]) -> dict[str, float]:
    names = sorted({name for one in found for name in one})
    return {name: float(np.mean([one[name] for one in found if name in one])) for name in names}
