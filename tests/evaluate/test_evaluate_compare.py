"""Paired tests: they agree with exact answers, and find a difference only where there is one."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.errors import UserError
from omnisource.evaluate.compare import compare, mcnemar_test, sign_flip_test
from omnisource.evaluate.predictions import Predictions, Unscored, align, as_table, read_predictions, write_predictions

CLASSES = ["a", "b", "c"]


def predictions(name: str, accuracy: float, seed: int, samples: int = 400, per_group: int = 1) -> Predictions:
    """Random predictions that are right with a chance of `accuracy`; labels depend on the position alone."""
    random = np.random.default_rng(seed)
    labels = np.arange(samples) % 3
    right = random.random(samples) < accuracy
    probs = np.full((samples, 3), 0.2)
    probs[np.arange(samples), np.where(right, labels, (labels + 1) % 3)] = 0.6
    ids = [f"s{n:05d}" for n in range(samples)]
    groups: list[str | None] = [f"g{n // per_group}" for n in range(samples)]
    return Predictions(name, CLASSES, ids, labels, probs, groups, [], "same list")


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_binomial_sum(only_a: int, only_b: int) -> None:
    total = only_a + only_b
    tail = sum(math.comb(total, k) for k in range(min(only_a, only_b) + 1)) / 2**total
    assert mcnemar_test(only_a, only_b) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_mcnemar_does_not_overflow() -> None:
    assert 0 < mcnemar_test(5000, 5300) < 0.01


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10))
def test_the_sign_flip_test_is_exact_for_few_groups(changes: list[int]) -> None:
    nonzero = [change for change in changes if change]
    totals = [
        abs(sum(map(math.prod, zip(nonzero, signs, strict=True))))
        for signs in itertools.product((1, -1), repeat=len(nonzero))
    ]
    expected = sum(total >= abs(sum(nonzero)) for total in totals) / len(totals)
    assert sign_flip_test(np.array(changes, float)) == pytest.approx(expected)


def test_the_sign_flip_test_of_many_groups_has_two_sides() -> None:
    changes = np.repeat([1.0, -1.0], [40, 12])
    exact = 2 * sum(math.comb(52, k) for k in range(13)) / 2**52
    assert sign_flip_test(changes) == sign_flip_test(-changes) == pytest.approx(exact, abs=5e-4)
    assert sign_flip_test(np.repeat([1.0, -1.0], 26)) == 1.0


def test_a_better_model_is_found_and_an_equal_one_is_not() -> None:
    better = compare(predictions("a", 0.5, 1), predictions("b", 0.7, 2))
    assert better.p_flip < 0.001 and better.p_mcnemar < 0.001
    assert better.interval[0] > 0.05
    assert better.difference == pytest.approx(better.top1_b - better.top1_a)
    assert better.only_b - better.only_a == pytest.approx(better.difference * better.samples)
    found = sum(
        compare(predictions("a", 0.6, s), predictions("b", 0.6, 1000 + s), resamples=10).p_mcnemar < 0.05
        for s in range(40)
    )
    assert found <= 6


def test_a_comparison_by_hand() -> None:
    """Of class a both know one, of b only A knows one, of c B knows both and A one."""
    labels = np.array([0, 0, 1, 1, 2, 2])
    said = {"A": [0, 1, 1, 0, 2, 0], "B": [0, 1, 0, 0, 2, 2]}
    given = {
        name: Predictions(name, [*CLASSES, "none"], list("uvwxyz"), labels, np.eye(4)[told], [None] * 6, [], "list")
        for name, told in said.items()
    }
    found = compare(given["A"], given["B"])
    assert (found.top1_a, found.top1_b, found.difference) == (0.5, 0.5, 0.0)
    assert (found.only_a, found.only_b, found.groups, found.left_out) == (1, 1, 6, 0)
    assert {name: (c.samples, c.a, c.b) for name, c in found.per_class.items()} == {
        "a": (2, 0.5, 0.5),
        "b": (2, 0.5, 0.0),
        "c": (2, 0.5, 1.0),
    }, "a class without samples is left out"
    assert compare(given["B"], given["A"]).p_flip == found.p_flip == 1.0
    some = compare(given["A"].take([2, 4, 5]), given["B"].take([2, 4, 5]))
    assert (some.difference, some.mean_class_difference) == (0.0, -0.25)


def test_few_groups_make_the_test_careful() -> None:
    a, b = predictions("a", 0.5, 1, per_group=100), predictions("b", 0.7, 2, per_group=100)
    found = compare(a, b)
    assert found.groups == 4
    assert found.p_flip >= 2 / 2**4


def test_other_classes_and_other_lists_are_refused_with_the_counts() -> None:
    a, b = predictions("a", 0.5, 1), predictions("b", 0.5, 2, samples=300)
    other_list = Predictions(**{**vars(b), "list_hash": "another"})
    with pytest.raises(UserError, match="a lists 400 test samples, b 300, 300 of them in common"):
        align([a, other_list])
    other_classes = Predictions(**{**vars(b), "classes": ["a", "b"]})
    with pytest.raises(UserError, match="a has 3 classes, b 2, 2 of them in common"):
        align([a, other_classes])


def test_samples_that_one_model_failed_on_are_left_out_of_both() -> None:
    a, b = predictions("a", 0.5, 1), predictions("b", 0.6, 2)
    lost = Unscored(b.sample_ids[0], "a", None, "decode_error")
    b = Predictions(**{**vars(b.take(range(1, 400))), "failed": [lost]})
    found = compare(a, b)
    assert (found.samples, found.left_out) == (399, 1)


def test_a_table_survives_the_disk(tmp_path: Path) -> None:
    before = predictions("x", 0.5, 1, samples=30)
    lost = Unscored("zzz", "b", None, "missing")
    before = Predictions(**{**vars(before), "failed": [lost]})
    path = tmp_path / "predictions-x.parquet"
    write_predictions(path, as_table(before), CLASSES)
    after = read_predictions(path)
    assert after.name == str(path) and after.failed == [lost] and after.groups == before.groups
    np.testing.assert_allclose(after.probs, before.probs, atol=1e-7)
    write_predictions(tmp_path / "again.parquet", as_table(after), CLASSES)
    assert read_predictions(tmp_path / "again.parquet").list_hash == after.list_hash


def test_what_is_no_predictions_table_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "x.parquet"
    text.write_text("no table")
    with pytest.raises(UserError, match="not a Parquet table"):
        read_predictions(text)
    with pytest.raises(UserError, match="no such predictions table"):
        read_predictions(tmp_path / "none.parquet")
    good = as_table(predictions("x", 0.5, 1, samples=5))
    write_predictions(text, good.drop_columns(["probs"]), CLASSES)
    with pytest.raises(UserError, match="lacks the columns probs"):
        read_predictions(text)
    write_predictions(text, good, ["a", "b"])
    with pytest.raises(UserError, match="not among its 2 classes"):
        read_predictions(text)
    write_predictions(text, good, [*CLASSES, "d"])
    with pytest.raises(UserError, match="do not have 4 probabilities"):
        read_predictions(text)
