"""What the cells amount to: means over folds and seeds, paired gains, intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from omnisource.evaluate.metrics import Interval, t_interval
from omnisource.evidence.cells import Cell
from omnisource.evidence.variants import Variant
from omnisource.recipe import TARGET_ONLY


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
    over_target: float | None  # mean paired difference to the target alone, whatever `against` is
    over_target_interval: Interval | None
    over_target_interval_folds: Interval | None
    target_clips_seen: float
    web_units: dict[str, float]
    precision: dict[str, float]
    recall: dict[str, float]
    cells: list[tuple[int, int, float]] = field(default_factory=list)
    """(fold, seed, top-1) of every training, for whoever reckons otherwise; files of earlier versions have none."""

    @property
    def significant(self) -> bool:
        """Whether the gain's interval is clear of zero."""
        return is_clear(self.gain_interval)

    @property
    def kept(self) -> str:
        """How many units each source gave, and in brackets the share of them that is right where the truth is known."""
        return ", ".join(
            f"{name} {count:.0f}" + (f" ({self.precision[name]:.0%})" if name in self.precision else "")
            for name, count in self.web_units.items()
        )


def is_clear(interval: Interval | None) -> bool:
    """Whether an interval is clear of zero."""
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def summarise(cells: Sequence[Cell], variants: Sequence[Variant]) -> list[Row]:
    """One row a variant, in their order; cells are of one track."""
    top1 = {(cell.variant, cell.fold, cell.seed): 100 * cell.top1 for cell in cells}
    rows = []
    for variant in variants:
        mine = [cell for cell in cells if cell.variant == variant.name]
        if not mine:
            continue
        gains, by_fold = _gains(mine, variant.against, top1)
        over_target, over_target_by_fold = _gains(mine, TARGET_ONLY, top1)
        each = [100 * cell.top1 for cell in mine]
        rows.append(
            Row(
                track=mine[0].track,
                variant=variant.name,
                question=variant.question,
                against=variant.against if gains else "",
                paper=variant.paper,
                folds=len({cell.fold for cell in mine}),
                seeds=len({cell.seed for cell in mine}),
                tested=sum(cell.tested for cell in mine if cell.seed == mine[0].seed),
                top1=float(np.mean(each)),
                top1_interval=t_interval(each, (0.0, 100.0)),
                gain=float(np.mean(gains)) if gains else None,
                gain_interval=t_interval(gains) if gains else None,
                gain_interval_folds=t_interval(by_fold) if by_fold else None,
                by_fold=by_fold,
                over_target=float(np.mean(over_target)) if over_target else None,
                over_target_interval=t_interval(over_target) if over_target else None,
                over_target_interval_folds=t_interval(over_target_by_fold) if over_target else None,
                target_clips_seen=float(np.mean([cell.target_clips_seen for cell in mine])),
                web_units=_means([cell.web_units for cell in mine]),
                precision=_means([cell.precision for cell in mine]),
                recall=_means([cell.recall for cell in mine]),
                cells=sorted((cell.fold, cell.seed, 100 * cell.top1) for cell in mine),
            )
        )
    return rows


def _gains(
    mine: Sequence[Cell], against: str, top1: Mapping[tuple[str, int, int], float]
) -> tuple[list[float], list[float]]:
    """Differences to another variant's cell of the same fold and seed, and their means over the seeds of each fold."""
    pairs = [
        (cell.fold, top1[cell.variant, cell.fold, cell.seed] - top1[against, cell.fold, cell.seed])
        for cell in mine
        if cell.variant != against and (against, cell.fold, cell.seed) in top1
    ]
    folds = sorted({fold for fold, _ in pairs})
    return [gain for _, gain in pairs], [float(np.mean([gain for at, gain in pairs if at == one])) for one in folds]


def _means(found: Sequence[dict[str, float]] | Sequence[dict[str, int]]) -> dict[str, float]:
    names = sorted({name for one in found for name in one})
    return {name: float(np.mean([one[name] for one in found if name in one])) for name in names}
