"""A fixed trunk: cached features give the training that the whole network would get, once, and for all runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from train_small import CLASSES, Small, settings

from omnisource.errors import UserError
from omnisource.media import Limits
from omnisource.networks import create, load_checkpoint, norms
from omnisource.recipe import Training
from omnisource.train import Pool, build_pool, train
from omnisource.train.decode import Reading
from omnisource.train.distributed import Ranks
from omnisource.train.frozen import FrozenLoader, Standard, trunk_features
from omnisource.train.loader import Quarantine
from omnisource.train.loop import Trainer
from omnisource.train.plan import Plan
from omnisource.train.record import load_state


def training_of(start: Path, **changes: Any) -> Training:
    given = settings("tsn_r18") | {"trunk_views": 2, "workers": 0} | changes
    given["network"] = {**given["network"], "init": {"checkpoint": str(start)}}
    given["optimiser"] = {"kind": "adamw", "lr": 0.01, "trunk_lr_scale": 0}
    return Training.model_validate(given)


def pool_of(small: Small) -> Pool:
    return build_pool(small.recipe, small.workspace, tuple(small.recipe.sources), True)


def reading_of(training: Training, pool: Pool) -> Reading:
    return Reading(training, True, None, pool.frames, pool.classes)


def test_features_are_the_trunks_and_are_computed_once(small: Small, start: Path, tmp_path: Path) -> None:
    training, pool = training_of(start), pool_of(small)
    network = create("tsn_r18", len(CLASSES), **training.network.options)
    calls = 0
    trunk = network.features

    def counted(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        assert not network.training and len(x) == 2
        return trunk(x)

    network.features = counted  # type: ignore[method-assign]
    asked = network, pool, reading_of(training, pool), training, torch.device("cpu"), tmp_path / "store"
    features, failures = trunk_features(*asked)
    assert not failures and features.shape == (len(pool), 2, network.feature_dim)
    assert calls == len(pool) and np.isfinite(features).all() and features.std() > 0
    assert not np.array_equal(features[:, 0], features[:, 1]), "views differ"
    again, _ = trunk_features(*asked)
    assert calls == len(pool) and np.array_equal(again, features)
    # A part that was lost is computed again, to the same bits: a unit's features depend on nothing else.
    parts = sorted((tmp_path / "store").rglob("*.parquet"))
    parts[0].unlink()
    repaired, _ = trunk_features(*asked)
    assert calls > len(pool) and np.array_equal(repaired, features)
    # The same weights with other norms are another trunk.
    for norm in norms(network):
        norm.eps = 1e-2
    network.options["norm_eps"] = 1e-2
    others, _ = trunk_features(*asked)
    assert not np.array_equal(others, features)
    for norm in norms(network):
        norm.eps = 1e-5
    del network.options["norm_eps"]
    # Processes that decode change nothing.
    other, _ = trunk_features(*asked[:3], training.model_copy(update={"workers": 2}), asked[4], tmp_path / "other")
    assert np.array_equal(other, features)


def test_only_the_classifier_trains_and_the_checkpoint_is_whole(small: Small, start: Path, tmp_path: Path) -> None:
    training, pool = training_of(start, epochs=6), pool_of(small)
    training = training.model_copy(update={"optimiser": training.optimiser.model_copy(update={"lr": 0.02})})
    result = train(training, pool, tmp_path / "runs" / "frozen", 5)
    before, _ = load_checkpoint(start)
    after, meta = load_checkpoint(result.checkpoint)
    assert meta.classes == tuple(pool.classes)
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]) != name.startswith("head.")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "runs/frozen/log.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] - 0.05
    # Another seed finds the features; the same seed gives the same bits.
    stored = sorted((tmp_path / "runs/.features").rglob("*.parquet"))
    one = train(training, pool, tmp_path / "runs" / "again", 5)
    train(training, pool, tmp_path / "runs" / "other", 6)
    assert sorted((tmp_path / "runs/.features").rglob("*.parquet")) == stored
    same, _ = load_checkpoint(one.checkpoint)
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in after.state_dict().items())


def test_standardised_features_have_the_target_as_their_measure() -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(6, 4, 9)) * 3 + 5).astype(np.float32)
    features[..., 4] = 2.0  # constant
    features[4:, :, 3:] = np.nan  # two images: no change to be seen
    raw, target = features.copy(), np.arange(6) < 4
    features[..., 7] = raw[..., 7] = features[..., 7] / 1000  # hardly moves
    spread = np.nanstd(raw[target].reshape(-1, 9), axis=0)
    standard = Standard.of(features, target, 3)
    standard.apply(features)
    seen = features[target].reshape(-1, 9)
    assert np.allclose(seen.mean(0), 0, atol=1e-5)
    usual = np.repeat(np.median(spread.reshape(3, 3), axis=1), 3)
    expected = spread / np.sqrt(spread**2 + (0.5 * usual) ** 2)
    assert np.allclose(seen.std(0), expected, atol=1e-4) and np.all(seen[:, 4] == 0)
    assert seen[:, 7].std() < 0.01, "what hardly moves on the target is not blown up"
    assert np.all(features[4:, :, 3:] == 0) and np.isfinite(features).all()
    # A classifier says the same of both, there and back.
    network = create("tsn_r18", 2, consensus="mean-std-slope", base_width=8)
    network.head = nn.Linear(9, 2)
    network.usual_change = torch.zeros(6)
    before = network.head(torch.from_numpy(raw[:4]))
    standard.enter(network.head)
    inside = network.head(torch.from_numpy(features))
    standard.leave(network)
    assert torch.allclose(inside[:4], before, atol=1e-4)
    assert torch.allclose(network.head(torch.from_numpy(raw[:4])), before, atol=1e-4)
    # What the network takes a single snippet's change for is what the classifier saw in its place.
    filled = torch.cat([torch.from_numpy(raw[4:, :, :3]), network.usual_change.expand(2, 4, 6)], 2)
    assert torch.allclose(network.head(filled), inside[4:], atol=1e-4)


def test_the_checkpoint_judges_features_as_the_trunk_gives_them(small: Small, start: Path, tmp_path: Path) -> None:
    """The classifier trained in other coordinates; they are changed back in what is saved."""
    training, pool = training_of(start, epochs=6), pool_of(small)
    folder = tmp_path / "runs" / "frozen"
    ranks = Ranks(0, 1, torch.device("cpu"))
    trainer = Trainer(training, pool, folder, 5, ranks, validation=None, camera=None, limits=Limits())
    result = trainer.run()
    trainer.close()
    saved, _ = load_checkpoint(result.checkpoint)
    asked = reading_of(training, pool), training, torch.device("cpu"), tmp_path / "runs" / ".features"
    features, _ = trunk_features(saved, pool, *asked)
    plain = saved.head(torch.from_numpy(features))
    assert trainer.standard is not None
    trainer.standard.apply(features)
    torch.testing.assert_close(trainer.network.head(torch.from_numpy(features)), plain, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(trainer.network.head.weight, saved.head.weight)


def test_a_restored_classifier_keeps_its_coordinates(small: Small, start: Path, tmp_path: Path) -> None:
    """Where the pool has changed meanwhile, its features have another mean; the classifier was trained with the old."""
    training, pool = training_of(start, ema=0.5), pool_of(small)
    ranks, features = Ranks(0, 1, torch.device("cpu")), np.ones((len(pool), 2, 64), np.float32)
    features[:, :, 0] = np.arange(len(pool))[:, None]
    made = dict(validation=None, camera=None, limits=Limits())
    first = Trainer(training, pool, tmp_path / "run", 5, ranks, **made)  # type: ignore[arg-type]
    first._standardise(features.copy(), {})
    first.checkpoint()
    second = Trainer(training, pool, tmp_path / "run", 5, ranks, **made)  # type: ignore[arg-type]
    state = load_state(tmp_path / "run")
    assert state is not None
    second.restore(state)
    second._standardise(features + 3, {})
    assert first.standard is not None and second.standard is not None
    assert torch.equal(second.standard.mean, first.standard.mean)
    assert torch.equal(second.network.head.weight, first.network.head.weight)
    assert first.average is not None and second.average is not None
    assert torch.equal(second.average.weights["head.weight"], first.average.weights["head.weight"])


def test_a_unit_that_cannot_be_read_is_replaced(small: Small, start: Path, tmp_path: Path) -> None:
    training, pool = training_of(start), pool_of(small)
    broken = pool.unit(0)
    Path(broken.uri).write_bytes(b"no media at all")
    network = create("tsn_r18", len(CLASSES), **training.network.options)
    asked = network, pool, reading_of(training, pool), training, torch.device("cpu"), tmp_path / "store"
    features, failures = trunk_features(*asked)
    assert list(failures) == [0]
    plan, quarantine = Plan(pool, training, 1), Quarantine(tmp_path / "run")
    batches = list(FrozenLoader(plan, features, failures, quarantine).batches(0, 12))
    replaced = [row for batch in batches for row in batch.replaced]
    assert replaced and all(row.unit == 0 != row.by for row in replaced)
    assert not any((batch.unit == 0).any() for batch in batches)
    assert broken.sample_id in (tmp_path / "run/quarantine.jsonl").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimiser": {"lr": 0.1}}, "trunk_lr_scale"),
        ({"network": {"name": "tsn_r18"}}, "network.init"),
        ({"norm_per_source": True}, "norm_per_source"),
    ],
)
def test_what_does_not_go_together_is_refused(start: Path, changes: dict[str, Any], message: str) -> None:
    given = training_of(start).model_dump() | changes
    with pytest.raises(ValueError, match=message):
        Training.model_validate(given)


def test_more_than_fits_into_memory_is_refused(
    small: Small, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnisource.train.frozen._MOST_BYTES", 1000)
    with pytest.raises(UserError, match="fewer views"):
        train(training_of(start), pool_of(small), tmp_path / "runs" / "big", 0)
