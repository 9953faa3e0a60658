"""Metrics agree with torchmetrics, and intervals with what they promise."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)

from omnisource.errors import UserError
from omnisource.evaluate.metrics import (
    bootstrap_interval,
    calibration_error,
    confusion,
    mean_class_accuracy,
    measure,
    per_class_accuracy,
    t_interval,
    t_quantile,
    top_k_accuracy,
)


def random_predictions(seed: int, samples: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    scores = random.normal(size=(samples, classes)) * 2
    labels = random.integers(0, classes, samples)
    scores[np.arange(samples), labels] += 1
    exp = np.exp(scores)
    return (exp / exp.sum(1, keepdims=True)).astype(np.float32), labels


@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(6, 30))
def test_metrics_agree_with_torchmetrics(seed: int, samples: int, classes: int) -> None:
    probs, labels = random_predictions(seed, samples, classes)
    p, y = torch.from_numpy(probs), torch.from_numpy(labels)
    for k in (1, 5):
        expected = multiclass_accuracy(p, y, classes, average="micro", top_k=k).item()
        assert top_k_accuracy(probs, labels, k) == pytest.approx(expected, abs=1e-6)
    assert (confusion(probs, labels) == multiclass_confusion_matrix(p, y, classes).numpy()).all()
    recall = multiclass_accuracy(p, y, classes, average=None).numpy()
    present = np.unique(labels)
    np.testing.assert_allclose(per_class_accuracy(probs, labels)[present], recall[present], atol=1e-6)
    assert np.isnan(np.delete(per_class_accuracy(probs, labels), present)).all()
    assert mean_class_accuracy(probs, labels) == pytest.approx(recall[present].mean(), abs=1e-6)
    ece = multiclass_calibration_error(p, y, classes, n_bins=15, norm="l1").item()
    assert calibration_error(probs, labels) == pytest.approx(ece, abs=1e-5)


def test_mean_class_agrees_with_torchmetrics_macro_when_all_classes_have_samples() -> None:
    probs, labels = random_predictions(3, 300, 7)
    expected = multiclass_accuracy(torch.from_numpy(probs), torch.from_numpy(labels), 7, average="macro").item()
    assert mean_class_accuracy(probs, labels) == pytest.approx(expected, abs=1e-6)


def test_a_known_case() -> None:
    probs = np.array([[0.7, 0.3, 0.0], [0.6, 0.4, 0.0], [0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])
    found = measure(probs, np.array([0, 1, 0, 1]), ["a", "b", "c"], bootstrap=0)
    assert found.top1 == 0.75
    assert found.top5 == 1.0
    assert found.mean_class == 0.75
    assert found.confusion == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found.per_class["c"].accuracy is None
    assert found.per_class["a"].predicted == 3
    assert found.top1_interval == (0.75, 0.75)
    json.dumps(found.as_counts(), allow_nan=False)


def test_t_quantiles_are_the_printed_ones() -> None:
    printed = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 14: 2.145, 30: 2.042, 120: 1.980}
    for freedom, value in printed.items():
        assert t_quantile(freedom) == pytest.approx(value, abs=6e-4)
    assert t_interval([0.5]) is None
    assert t_interval([0.8, 1.0, 1.0], (0.0, 1.0)) == (pytest.approx(0.6465, abs=1e-4), 1.0)
    low, high = t_interval([0.4, 0.5, 0.6]) or (0, 0)
    assert (low, high) == (pytest.approx(0.5 - 0.24841, abs=1e-4), pytest.approx(0.5 + 0.24841, abs=1e-4))


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        low, high = bootstrap_interval((random.random(150) < 0.6).astype(float), resamples=300, seed=trial)
        inside += low <= 0.6 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_samples_of_one_group_are_resampled_together() -> None:
    # 10 films of 20 identical clips carry the information of 10 samples, not of 200.
    hits = np.repeat(np.array([1, 0, 1, 1, 0, 0, 1, 0, 1, 0], float), 20)
    films = [str(index // 20) for index in range(200)]
    alone = bootstrap_interval(hits, resamples=1000)
    together = bootstrap_interval(hits, groups=films, resamples=1000)
    ten = bootstrap_interval(hits[::20], resamples=1000)
    assert together == pytest.approx(ten, abs=0.06)
    assert together[1] - together[0] > 3 * (alone[1] - alone[0])
    assert bootstrap_interval(hits, groups=[None] * 200, resamples=200) == pytest.approx(alone, abs=0.02)


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (np.ones((2, 3)), [0, 1], "3 probabilities a sample, but 2 classes"),
        (np.ones((0, 2)), [], "no sample was scored"),
        (np.full((1, 2), np.nan), [0], "not finite"),
        (np.ones((1, 2)), [2], "outside the 2 classes"),
    ],
)
def test_impossible_predictions_are_refused(probs: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure(probs, np.array(labels, int), ["a", "b"])
