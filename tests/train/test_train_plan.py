"""The plan against what the paper says of it: shares of sources, frequencies of classes, passes, pairs."""

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.errors import UserError
from omnisource.recipe import Training
from omnisource.train import Plan, Pool
from omnisource.train.pool import FACTS, Facts, Rows

NAMES = ("target", "images", "clips", "films")


def pool_of(labels: list[list[int]], classes: int = 4) -> Pool:
    """A pool with the given labels of each source, the first of which is the target."""
    return Pool(
        sources=NAMES[: len(labels)],
        roles=("target", "web", "web", "web")[: len(labels)],
        classes=tuple(f"class {number}" for number in range(classes)),
        source=np.repeat(np.arange(len(labels)), [len(some) for some in labels]).astype(np.int32),
        label=np.concatenate([np.array(some, np.int32) for some in labels]),
        digest="",
        frames=None,
        facts=Facts(**{name: np.empty(0, kind) for name, kind in FACTS.items()}),
        files=Rows([]),
        soft_labels=Rows([]),
    )


def training(**settings: Any) -> Training:
    return Training.model_validate({"network": {"name": "slowonly_r18"}, **settings})


LONG_TAIL = [0] * 400 + [1] * 100 + [2] * 25 + [3] * 4


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        ({"target": 8, "web_ratio": 0.5}, [8, 4, 4, 4]),  # 2:1:1:1
        ({"target": 12, "sizes": {"images": 64, "clips": 12, "films": 12}}, [12, 64, 12, 12]),
        ({"target": 4, "ratio": {"images": 2.0, "clips": 0.1, "films": 0.4}}, [4, 8, 1, 2]),
        ({"target": 4, "sizes": {"images": 3}, "ratio": {"images": 2.0}}, [4, 3, 2, 2]),  # sizes win
    ],
)
def test_every_step_has_the_share_of_each_source(batch: dict[str, Any], sizes: list[int]) -> None:
    plan = Plan(pool_of([LONG_TAIL] * 4), training(batch=batch), seed=1)
    for step in (0, 17, 100_000):
        assert np.bincount(plan.step(step).source).tolist() == sizes


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**40))
def test_a_pass_is_every_unit_once(units: int, batch: int, seed: int) -> None:
    batch = min(batch, units)
    plan = Plan(pool_of([[0] * units]), training(batch={"target": batch}), seed)
    steps = [plan.step(step).unit for step in range(3 * units)]
    dealt = np.concatenate(steps)
    for number in range(len(dealt) // units):
        assert np.array_equal(np.sort(dealt[number * units :][:units]), np.arange(units))


def test_an_epoch_is_a_pass_over_the_target() -> None:
    plan = Plan(pool_of([[0] * 30, [0] * 1000]), training(batch={"target": 8}, epochs=4), seed=0)
    assert plan.steps_per_epoch == 30 / 8 and plan.steps == 15


@pytest.mark.parametrize("power", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize(("clip", "most"), [(None, 400), (50, 50), ("mean", 132)])
def test_classes_are_drawn_by_the_power_of_their_clipped_size(power: float, clip: int | str | None, most: int) -> None:
    """Chi-square of the classes drawn over many passes against min(N_c, clip)^p."""
    resample = {"images": {"power": power, "clip": clip}}
    pool = pool_of([[0, 1, 2, 3] * 8, LONG_TAIL])
    plan = Plan(pool, training(batch={"target": 8, "sizes": {"images": 16}}, resample=resample), seed=3)
    units = plan.decks[1].units(np.arange(24_000))  # of 1,500 steps
    counts = np.bincount(pool.label[units], minlength=4)
    sizes = np.minimum([400, 100, 25, 4], most).astype(float) ** power
    expected = len(units) * sizes / sizes.sum()
    # Passes are stratified, so the statistic is far below that of independent draws; it must not be above.
    assert ((counts - expected) ** 2 / expected).sum() < 11.3  # 99 % of chi-square with 3 degrees of freedom


def test_units_of_a_resampled_class_are_drawn_equally_often() -> None:
    pool = pool_of([[0, 1, 2, 3] * 8, LONG_TAIL])
    resample = {"images": {"power": 0.5}}
    plan = Plan(pool, training(batch={"target": 8, "sizes": {"images": 64}}, resample=resample), seed=4)
    units = plan.decks[1].units(np.arange(128_000))  # of 2,000 steps
    for label in range(4):
        mine = np.flatnonzero((pool.label == label) & (pool.source == 1))
        counts = np.bincount(units, minlength=len(pool))[mine]
        expected = counts.sum() / len(mine)
        freedom = len(mine) - 1
        assert ((counts - expected) ** 2 / expected).sum() < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("power", [0.0, 0.3, 0.7])
def test_within_a_resampled_pass_units_of_a_class_come_equally_often_or_once_more(power: float) -> None:
    pool = pool_of([[0] * 16, LONG_TAIL])
    plan = Plan(
        pool, training(batch={"target": 4, "sizes": {"images": 23}}, resample={"images": {"power": power}}), seed=5
    )
    deck = plan.decks[1]
    units = deck.units(np.arange(5 * deck.length))
    for number in range(5):
        counts = np.bincount(units[number * deck.length :][: deck.length], minlength=len(pool))
        for label in range(4):
            mine = counts[(pool.label == label) & (pool.source == 1)]
            assert mine.max() - mine.min() <= 1


def test_a_step_follows_from_its_number_alone() -> None:
    settings = training(batch={"target": 4}, mixup={"kind": "cross"}, resample={"images": {"power": 0.5}})
    pool = pool_of([[0, 1] * 20, LONG_TAIL])
    forwards = [Plan(pool, settings, 9).step(step) for step in range(20)]
    plan = Plan(pool, settings, 9)
    for step in reversed(range(20)):
        again, before = plan.step(step), forwards[step]
        for name in ("unit", "source", "key", "partner", "weight"):
            assert np.array_equal(getattr(again, name), getattr(before, name))
    other = Plan(pool, settings, 10).step(0)
    assert not np.array_equal(other.unit, forwards[0].unit) and not np.array_equal(other.key, forwards[0].key)


def test_a_plan_is_the_same_on_every_machine_and_in_every_version() -> None:
    # Frozen: a change of these changes every training that was ever made.
    settings = training(
        batch={"target": 4, "sizes": {"images": 3, "clips": 2}},
        mixup={"kind": "cross", "probability": 0.5},
        resample={"images": {"power": 0.5, "clip": 50}},
    )
    plan = Plan(pool_of([[0, 1, 2, 3] * 5, LONG_TAIL, [1] * 9]), settings, seed=7)
    slots = plan.step(1234)
    assert slots.unit.tolist() == [4, 2, 11, 18, 545, 506, 539, 553, 552]
    assert slots.partner.tolist() == [0, 5, 2, 4, 1, 5, 6, 0, 1]
    assert slots.weight == pytest.approx([1, 0.2067906, 1, 0.9425302, 0.9995661, 1, 1, 0.6076300, 0.9626960], abs=1e-6)
    assert slots.key[:2].tolist() == [10471148635187334935, 7449499676619544883]
    assert [plan.replacement(1234, slot, 1) for slot in range(9)] == [12, 10, 11, 9, 440, 284, 404, 557, 556]
    within = training(batch={"target": 4, "sizes": {"images": 3, "clips": 2}}, mixup={"kind": "within"})
    assert Plan(plan.pool, within, seed=7).step(1234).partner.tolist() == [1, 2, 3, 0, 6, 4, 5, 8, 7]


def test_another_source_leaves_the_order_of_the_others_alone() -> None:
    alone = Plan(pool_of([[0] * 50, [1] * 60]), training(batch={"target": 4}), seed=2)
    beside = Plan(pool_of([[0] * 50, [1] * 60, [2] * 70]), training(batch={"target": 4}), seed=2)
    for step in range(30):
        assert np.array_equal(alone.step(step).unit, beside.step(step).unit[:6])


def test_keys_never_repeat() -> None:
    plan = Plan(pool_of([[0] * 64]), training(batch={"target": 64}), seed=0)
    keys = np.concatenate([plan.step(step).key for step in range(500)])
    assert len(np.unique(keys)) == len(keys)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_cross_mixup_pairs_target_with_web(targets: int, webs: int, step: int) -> None:
    settings = training(batch={"target": targets, "sizes": {"images": webs}}, mixup={"kind": "cross"})
    slots = Plan(pool_of([[0] * 12, [1] * 12]), settings, seed=0).step(step)
    assert (slots.source[slots.partner] != slots.source).all()
    partners = slots.partner[:targets]
    assert len(np.unique(partners)) == min(targets, webs)  # no partner is taken twice while one is left
    assert ((slots.weight >= 0) & (slots.weight <= 1)).all()


def test_cross_mixup_weights_are_beta_draws_and_its_probability_holds() -> None:
    settings = training(batch={"target": 8, "web_ratio": 1}, mixup={"kind": "cross", "alpha": 0.4, "probability": 0.7})
    plan = Plan(pool_of([[0] * 50, [1] * 50]), settings, seed=0)
    slots = [plan.step(step) for step in range(600)]
    mixed = np.concatenate([some.partner != np.arange(len(some)) for some in slots])
    weight = np.concatenate([some.weight for some in slots])
    assert abs(mixed.mean() - 0.7) < 5 * math.sqrt(0.21 / len(mixed))
    of_steps = mixed.reshape(600, 16).mean(1)
    assert abs(of_steps.var() * 16 / 0.21 - 1) < 0.3  # each slot draws for itself
    assert (weight[~mixed] == 1).all()
    assert abs(weight[mixed].mean() - 0.5) < 0.02
    assert abs(weight[mixed].var() * 4 * (2 * 0.4 + 1) - 1) < 0.05
    partners = np.concatenate([some.partner[:8] for some in slots if (some.partner[:8] >= 8).all()])
    assert len(np.unique(partners)) == 8  # every pairing occurs


def test_mixup_within_stays_in_its_source() -> None:
    settings = training(batch={"target": 5, "sizes": {"images": 3, "clips": 1}}, mixup={"kind": "within"})
    slots = Plan(pool_of([[0] * 9, [1] * 9, [2] * 9]), settings, seed=0).step(7)
    assert (slots.source[slots.partner] == slots.source).all()
    assert (slots.partner[:8] != np.arange(8)).all() and slots.partner[8] == 8  # alone in its source


def test_without_web_sources_cross_mixup_mixes_nothing() -> None:
    slots = Plan(pool_of([[0] * 9]), training(batch={"target": 4}, mixup={"kind": "cross"}), seed=0).step(0)
    assert (slots.weight == 1).all() and (slots.partner == np.arange(4)).all()


def test_replacements_come_from_the_same_source_by_the_same_law() -> None:
    pool = pool_of([[0] * 20, LONG_TAIL])
    plan = Plan(pool, training(batch={"target": 4}, resample={"images": {"power": 0.0}}), seed=6)
    assert [pool.source[plan.replacement(3, slot, 1)] for slot in range(6)] == [0, 0, 0, 0, 1, 1]
    assert plan.replacement(3, 5, 1) == plan.replacement(3, 5, 1) != plan.replacement(3, 5, 2)
    spare = np.array([plan.replacement(step, 4, attempt) for step in range(300) for attempt in (1, 2)])
    counts = np.bincount(pool.label[spare], minlength=4)
    assert ((counts - 150) ** 2 / 150).sum() < 11.3
    with pytest.raises(IndexError):
        plan.replacement(0, 6, 1)


def test_several_targets_are_one_deck() -> None:
    pool = pool_of([[0] * 10, [1] * 30])
    both = Pool(**{**vars(pool), "roles": ("target", "target")})
    plan = Plan(both, training(batch={"target": 8}), seed=0)
    assert plan.steps_per_epoch == 5
    assert np.array_equal(np.sort(np.concatenate([plan.step(step).unit for step in range(5)])), np.arange(40))
    with pytest.raises(UserError, match="one deck; resample them alike"):
        Plan(both, training(batch={"target": 8}, resample={"images": {"power": 0.5}}), seed=0)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"target": 31}, "batch.target is 31, but only 30 units"),
        ({"target": 8, "sizes": {"images": 21}}, "batch.sizes.images is 21, but only 20 units"),
        ({"target": 8, "ratio": {"target": 2.0}}, "'target' is a target source"),
    ],
)
def test_batches_that_cannot_be_filled_are_refused(batch: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Plan(pool_of([[0] * 30, [1] * 20]), training(batch=batch), seed=0)


def test_a_share_beyond_a_small_source_is_all_of_it() -> None:
    plan = Plan(pool_of([[0] * 30, [1] * 3]), training(batch={"target": 16, "ratio": {"images": 1.0}}), seed=0)
    assert plan.sizes == [16, 3]


@pytest.mark.parametrize(("kept", "share"), [(1, 1), (3, 1), (8, 4), (12, 6), (31, 15), (32, 16), (400, 16)])
def test_no_source_is_seen_more_often_than_the_target(kept: int, share: int) -> None:
    plan = Plan(pool_of([[0] * 32, [1] * kept]), training(batch={"target": 16, "web_ratio": 1.0}), seed=0)
    assert plan.sizes == [16, share]
    seen = np.bincount(np.concatenate([plan.step(step).unit for step in range(plan.steps)]), minlength=32 + kept)
    assert seen[32:].max() <= seen[:32].max() or kept == 1


def test_ten_million_units_open_fast_and_step_fast() -> None:
    rng = np.random.default_rng(0)
    label = np.minimum(rng.pareto(1.0, 10_000_000) * 3, 399).astype(np.int32)
    source = np.repeat(np.arange(3), [300_000, 6_000_000, 3_700_000]).astype(np.int32)
    pool = Pool(**{**vars(pool_of([[0], [0], [0]], 400)), "label": label, "source": source})
    settings = training(batch={"target": 16}, resample={"images": {"power": 0.5}}, mixup={"kind": "cross"})
    began = time.process_time()
    plan = Plan(pool, settings, seed=0)
    opened = time.process_time() - began
    began = time.process_time()
    slots = [plan.step(step * 9973) for step in range(50)]
    per_slot = (time.process_time() - began) / sum(len(some) for some in slots)
    assert opened < 10 and per_slot < 1e-3


def test_a_source_of_which_nothing_was_kept_takes_no_slots() -> None:
    plan = Plan(pool_of([LONG_TAIL, [], LONG_TAIL]), training(batch={"target": 8, "web_ratio": 0.5}), seed=1)
    assert np.bincount(plan.step(3).source, minlength=3).tolist() == [8, 0, 4]
    alone = Plan(pool_of([LONG_TAIL, []]), training(), seed=1)
    same = Plan(pool_of([LONG_TAIL]), training(), seed=1)
    assert np.array_equal(alone.step(5).unit, same.step(5).unit)
    assert np.array_equal(alone.step(5).key, same.step(5).key)
