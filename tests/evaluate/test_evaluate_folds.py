"""Means over seeds and folds, and paired gains, from tables on disk."""

from pathlib import Path

import numpy as np
import pytest

from omnisource.evaluate.folds import predictions_name, summarise, summarise_folds, summarise_run
from omnisource.evaluate.predictions import Predictions, as_table, write_predictions
from omnisource.recipe import Recipe
from omnisource.workspace import Workspace, open_workspace

CLASSES = [f"c{n}" for n in range(7)]
RECIPE = Recipe.model_validate(
    {
        "name": "x",
        "sources": {"target": {"role": "target", "path": "t"}, "web": {"role": "web", "path": "w"}},
        "teachers": {"image": {"network": {"name": "a"}}, "video": {"network": {"name": "b"}}},
        "student": {"network": {"name": "b"}},
        "seeds": [0, 1, 2],
        "test": {"bootstrap": 300},
    }
)


def write(
    workspace: Workspace, run: str, seed: int, accuracy: float, samples: int, noise: int, split: str = "test"
) -> float:
    random = np.random.default_rng(noise)
    labels = np.arange(samples) % 7
    right = random.random(samples) < accuracy
    probs = np.full((samples, 7), 0.1)
    probs[np.arange(samples), np.where(right, labels, (labels + 1) % 7)] = 0.4
    ids = [f"{n:04d}" for n in range(samples)]
    made = Predictions("x", CLASSES, ids, labels, probs, [f"g{n // 3}" for n in range(samples)], [], "")
    write_predictions(workspace.table(predictions_name(f"{run}-{seed}", split)), as_table(made), CLASSES)
    return float(right.mean())


def test_means_intervals_and_gain(tmp_path: Path) -> None:
    with open_workspace(tmp_path) as workspace:
        base = [write(workspace, "target-only", seed, 0.5, 200, seed) for seed in range(3)]
        both = [write(workspace, "all", seed, 0.7, 200, 10 + seed) for seed in range(3)]
        first, second = summarise(workspace, RECIPE)
    assert (first.run, first.gain, first.baseline) == ("target-only", None, None)
    assert first.top1 == pytest.approx(np.mean(base))
    assert first.top1_each == pytest.approx(base)
    assert second.gain == pytest.approx(np.mean(both) - np.mean(base))
    assert second.gain_interval is not None and second.gain_t_interval is not None
    assert 0.1 < second.gain_interval[0] < second.gain < second.gain_interval[1] < 0.3
    assert second.gain_t_interval[0] < second.gain < second.gain_t_interval[1]
    assert (second.samples, second.failed, second.folds, second.seeds) == (200, 0, 1, [0, 1, 2])
    assert first.list_hashes == second.list_hashes


def test_untested_runs_are_left_out_and_gains_are_paired_by_seed(tmp_path: Path) -> None:
    with open_workspace(tmp_path) as workspace:
        assert summarise(workspace, RECIPE) == []
        base = [write(workspace, "target-only", seed, 0.5, 100, seed) for seed in (0, 1)]
        both = [write(workspace, "all", seed, 0.7, 100, 10 + seed) for seed in (1, 2)]
        _, second = summarise(workspace, RECIPE)
    assert second.gain == pytest.approx(both[0] - base[1])
    assert second.gain_t_interval is None
    assert second.trainings == 2


def test_folds_count_alike_however_large(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "1") as one, open_workspace(tmp_path / "2") as two:
        small = write(one, "target-only", 0, 0.2, 60, 1)
        large = write(two, "target-only", 0, 0.8, 300, 2)
        (found,) = summarise_folds([one, two], RECIPE)
    middle = (small + large) / 2
    assert found.top1 == pytest.approx(middle)
    assert found.top1_interval[0] < middle < found.top1_interval[1]
    assert (found.folds, found.samples) == (2, 360)


def test_the_interval_is_of_the_mean_also_where_a_fold_lacks_seeds(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "1") as one, open_workspace(tmp_path / "2") as two:
        each = [write(one, "target-only", seed, 0.2, 200, seed) for seed in range(3)]
        each.append(write(two, "target-only", 0, 0.8, 200, 9))
        (found,) = summarise_folds([one, two], RECIPE)
    assert found.top1 == pytest.approx(np.mean(each))
    assert found.top1_interval[0] < found.top1 < found.top1_interval[1]


def test_no_interval_reaches_beyond_what_was_found_everywhere(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "1") as one, open_workspace(tmp_path / "2") as two:
        write(one, "target-only", 0, 1.0, 30, 1)
        write(two, "target-only", 0, 1.0, 300, 2)
        (found,) = summarise_folds([one, two], RECIPE)
    assert found.top1_interval == pytest.approx((1.0, 1.0))


def test_only_the_split_that_is_tested_counts_and_not_what_is_left_out(tmp_path: Path) -> None:
    on_val = RECIPE.model_copy(update={"test": RECIPE.test.model_copy(update={"split": "val"})})
    with open_workspace(tmp_path) as workspace:
        held = [write(workspace, "target-only", seed, 0.5, 50, seed, "val") for seed in (0, 1)]
        assert summarise(workspace, RECIPE) == []
        write(workspace, "target-only", 0, 0.9, 50, 0)
        (found,) = summarise(workspace, on_val)
        (without,) = summarise(workspace, on_val, without={"target-only-0"})
    assert (found.top1_each, without.top1_each) == (held, held[1:])


def test_samples_of_one_group_are_resampled_together() -> None:
    right = np.arange(200) // 20 % 2  # ten groups, of which all samples or none are right

    def width(groups: list[str | None]) -> float:
        names = [f"{n:03d}" for n in range(200)]
        made = Predictions("x", CLASSES, names, np.ones(200, np.int64), np.eye(7)[right], groups, [], "")
        low, high = summarise_run("all", {(0, 0): made}, None, {}, 500).top1_interval
        return high - low

    assert width([None] * 200) == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 200), rel=0.15)
    assert width([f"g{n // 20}" for n in range(200)]) == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 10), rel=0.15)
