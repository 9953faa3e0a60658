"""What a set of trainings amounts to: means over seeds and folds, intervals, and the gain over the baseline."""

from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from omnisource.errors import UserError
from omnisource.evaluate.metrics import (
    Floats,
    Interval,
    bootstrap_interval,
    hits_at,
    mean_class_accuracy,
    t_interval,
    top_k_accuracy,
)
from omnisource.evaluate.predictions import Predictions, read_predictions
from omnisource.recipe import Recipe
from omnisource.workspace import Workspace

Results = dict[tuple[int, int], Predictions]  # (fold, seed) -> predictions of one run


@dataclass(frozen=True)
class RunSummary:
    """One run (a choice of sources) over its folds and seeds. Intervals are of 95 %."""

    run: str
    folds: int
    seeds: list[int]
    trainings: int  # tested so far; folds x seeds when complete
    samples: int  # scored, all folds together
    failed: int  # of the test lists, but not scored
    list_hashes: list[str]  # one a fold
    top1: float  # mean over the trainings
    top1_each: list[float]  # by fold, then seed
    top1_t_interval: Interval | None  # Student's t over the trainings; None for a single one
    top1_interval: Interval  # bootstrap over test samples (groups), seeds averaged
    top5: float
    mean_class: float
    baseline: str | None = None  # the run that `gain` refers to; None for the baseline itself
    gain: float | None = None  # mean of the paired differences in top-1
    gain_t_interval: Interval | None = None
    gain_interval: Interval | None = None

    def as_counts(self) -> dict[str, Any]:
        """As JSON-able values, for a stage record."""
        return asdict(self)


def summarise(workspace: Workspace, recipe: Recipe, without: Container[str] = ()) -> list[RunSummary]:
    """The tested runs of one workspace, in the recipe's order; runs that are not tested yet are left out.

    Args:
        without: trainings (`RUN-SEED`) that are left out too.
    """
    return summarise_folds([workspace], recipe, without)


def summarise_folds(workspaces: Sequence[Workspace], recipe: Recipe, without: Container[str] = ()) -> list[RunSummary]:
    """The same over several workspaces, one a fold (or official split) of the same recipe."""
    tested = {
        run: results for run in recipe.planned_runs() if (results := _read_results(workspaces, recipe, run, without))
    }
    baseline = next(iter(tested), None)
    return [
        summarise_run(run, results, None if run == baseline else baseline, tested[str(baseline)], recipe.test.bootstrap)
        for run, results in tested.items()
    ]


def summarise_run(run: str, results: Results, baseline: str | None, base: Results, bootstrap: int) -> RunSummary:
    """One run, and its gain over the baseline in the folds and seeds that both have."""
    top1 = [_top1(results[key]) for key in sorted(results)]
    lists = {fold: predictions for (fold, _), predictions in sorted(results.items(), reverse=True)}
    both = sorted(set(results) & set(base)) if baseline else []
    gains = [_top1(results[key]) - _top1(base[key]) for key in both]
    return RunSummary(
        run=run,
        folds=len(lists),
        seeds=sorted({seed for _, seed in results}),
        trainings=len(results),
        samples=sum(len(predictions.sample_ids) for predictions in lists.values()),
        failed=sum(len(predictions.failed) for predictions in lists.values()),
        list_hashes=[lists[fold].list_hash for fold in sorted(lists)],
        top1=float(np.mean(top1)),
        top1_each=top1,
        top1_t_interval=t_interval(top1, (0.0, 1.0)),
        top1_interval=_interval({key: _hits(results[key]) for key in results}, bootstrap),
        top5=float(np.mean([top_k_accuracy(p.probs, p.labels, 5) for p in results.values()])),
        mean_class=float(np.mean([mean_class_accuracy(p.probs, p.labels) for p in results.values()])),
        baseline=baseline if both else None,
        gain=float(np.mean(gains)) if both else None,
        gain_t_interval=t_interval(gains) if both else None,
        gain_interval=_interval({key: _change(base[key], results[key]) for key in both}, bootstrap) if both else None,
    )


def parse_folds(text: str) -> list[int]:
    """Reads `1,2,3`.

    Raises:
        UserError: not numbers, or one of them twice.
    """
    words = [word.strip() for word in text.split(",")]
    if bad := [word for word in words if not word.isdecimal()]:
        raise UserError(f"--folds {text}: '{bad[0]}' is not a number; write e.g. --folds 1,2,3")
    folds = [int(word) for word in words]
    if len(set(folds)) < len(folds):
        raise UserError(f"--folds {text}: names a fold twice; it would count twice in the mean")
    return folds


def fold_overrides(recipe: Recipe, fold: int) -> list[str]:
    """The settings that make `fold` the one to test on: `fold` in the `where` or the `test` of each target source.

    Raises:
        UserError: no target source chooses by fold.
    """
    found = [
        f"sources.{name}.{key}.fold={fold}"
        for name in recipe.target_sources
        for key in ("where", "test")
        if "fold" in getattr(recipe.sources[name], key)
    ]
    if not found:
        raise UserError(
            f"recipe {recipe.name}: no target source chooses by fold; give it `where: {{fold: 1}}` (official "
            "splits) or `test: {fold: 0}`"
        )
    return found


def predictions_name(training: str, split: str = "test") -> str:
    """Name of the predictions table of a training (`RUN-SEED`); other splits than `test` stand in it."""
    return f"predictions-{training}" + ("" if split == "test" else f"-{split}")


_Values = tuple[list[str], list[str], Floats]  # sample ids, groups, one value a sample


def _read_results(workspaces: Sequence[Workspace], recipe: Recipe, run: str, without: Container[str]) -> Results:
    paths = {
        (fold, seed): workspace.table(predictions_name(f"{run}-{seed}", recipe.test.split))
        for fold, workspace in enumerate(workspaces)
        for seed in recipe.seeds
        if f"{run}-{seed}" not in without
    }
    return {key: read_predictions(path) for key, path in paths.items() if path.exists()}


def _top1(predictions: Predictions) -> float:
    return top_k_accuracy(predictions.probs, predictions.labels, 1)


def _hits(predictions: Predictions) -> _Values:
    ids = predictions.sample_ids
    groups = [
        group if group is not None else f"alone {name}" for group, name in zip(predictions.groups, ids, strict=True)
    ]
    return ids, groups, hits_at(predictions.probs, predictions.labels, 1)


def _change(base: Predictions, other: Predictions) -> _Values:
    ids, groups, before = _hits(base)
    after = dict(zip(other.sample_ids, _hits(other)[2], strict=True))
    kept = [n for n, name in enumerate(ids) if name in after]
    values = np.array([after[ids[n]] - before[n] for n in kept])
    return [ids[n] for n in kept], [groups[n] for n in kept], values


def _interval(values: dict[tuple[int, int], _Values], bootstrap: int) -> Interval:
    """Bootstrap interval of the mean over trainings: over folds of that over seeds, where every fold has all seeds."""
    sums: dict[tuple[int, str], float] = {}
    counts: dict[tuple[int, str], int] = {}
    group_of: dict[tuple[int, str], str] = {}
    for (fold, _), (ids, groups, found) in values.items():
        for name, group, value in zip(ids, groups, found, strict=True):
            key = (fold, name)
            sums[key] = sums.get(key, 0.0) + float(value)
            counts[key] = counts.get(key, 0) + 1
            group_of[key] = group
    keys = list(sums)
    of_fold = np.array([fold for fold, _ in keys])
    _, fold_index, sizes = np.unique(of_fold, return_inverse=True, return_counts=True)
    # Every training counts alike, however many samples its fold has: so the mean over samples is that over trainings.
    trainings = np.unique([fold for (fold, _), (ids, _, _) in values.items() if ids], return_counts=True)[1]
    weights = len(keys) / (len(sizes) * sizes[fold_index]) * (trainings * len(sizes) / trainings.sum())[fold_index]
    means = np.array([sums[key] / counts[key] for key in keys])
    groups = [group_of[key] for key in keys]
    return bootstrap_interval(means, groups=groups, weights=weights, resamples=bootstrap)
