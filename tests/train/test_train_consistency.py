"""Consistency on web units: its loss by hand, and that it disturbs nothing else."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_loop import CPU, batch_of, log_of, pool_of, trainer_of
from train_small import Small, settings

from omnisource.networks import load_checkpoint
from omnisource.recipe import Training
from omnisource.train import train
from omnisource.train.consistency import consistency_losses, strong_views
from omnisource.train.distributed import Parallel, Ranks
from omnisource.train.inputs import make_inputs
from omnisource.train.keys import mix
from omnisource.train.loader import Loader, Quarantine
from omnisource.train.loop import Trainer
from omnisource.train.objective import Objective
from omnisource.train.record import load_state
from omnisource.train.tally import new_sums


def test_the_loss_is_of_units_of_which_the_network_is_sure() -> None:
    weak = torch.log(torch.tensor([[0.96, 0.04], [0.94, 0.06], [0.01, 0.99]])).requires_grad_()
    strong = torch.log(torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.5, 0.5]])).requires_grad_()
    each, sure = consistency_losses(weak, strong, 0.95)
    assert sure.tolist() == [True, False, True]
    torch.testing.assert_close(each, torch.tensor([math.log(4), 0.0, math.log(2)]))
    each.sum().backward()
    assert weak.grad is None
    torch.testing.assert_close(strong.grad, torch.tensor([[-0.75, 0.75], [0.0, 0.0], [0.5, -0.5]]))


@pytest.mark.parametrize("shape", [(3, 4, 16, 16), (700,)])
def test_a_view_follows_from_its_key_alone(shape: tuple[int, ...]) -> None:
    clips, slots = torch.randn(4, *shape), mix(7, np.arange(4))
    views = strong_views(clips, slots, False)
    order = [2, 0]
    assert torch.equal(strong_views(clips[order], slots[order], False), views[order])
    others = strong_views(clips, mix(8, np.arange(4)), False)
    assert all(not torch.equal(one, other) for one, other in zip(views, others, strict=True))
    if len(shape) == 1:
        kept = views != 0
        assert torch.equal(views[kept], 2 * clips[kept]) and 0.4 < float(kept.float().mean()) < 0.6


@pytest.mark.parametrize("accumulate", [False, True])
def test_gradients_are_those_of_the_formula(small_tables: Small, tmp_path: Path, accumulate: bool) -> None:
    """Written out with torch alone; and two processes' shares of a batch amount to the same."""
    values = settings("slowonly_r18") | {"accumulate": accumulate, "consistency": {"weight": 3.0}}
    values["network"] |= {"norm": "frozen"}
    values["loss_weight"] = dict.fromkeys(("images", "shorts", "films"), 0.0)
    trainer = trainer_of(small_tables, tmp_path, Training.model_validate(values))
    network = trainer.network
    whole = make_inputs(batch_of(trainer), trainer.pool, trainer.training, False, CPU.device)
    clips = torch.cat(whole.clips)[torch.argsort(torch.cat(whole.rows))]
    said = network(clips)
    probs, label = said[4:].detach().softmax(1).max(1)
    confidence = float(probs.sort().values[2:4].mean())
    sure = probs >= confidence
    assert sure.sum() == 3 and len(clips) == 10
    strong = torch.nn.functional.cross_entropy(
        network(strong_views(clips[4:], whole.slot_keys[4:], False)), label, reduction="none"
    )
    loss = torch.nn.functional.cross_entropy(said[:4], whole.truth[:4]) + 3 * (strong * sure).sum() / 6
    network.zero_grad()
    loss.backward()
    wanted = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}

    training = Training.model_validate(values | {"consistency": {"weight": 3.0, "confidence": confidence}})
    for world in (1, 2):
        network.zero_grad()
        sums = new_sums(trainer.pool)
        for rank in range(world):
            ranks = Ranks(rank, world, CPU.device)
            objective = Objective(training, trainer.plan, network, Parallel(network, CPU, "ddp"), ranks)
            loader = Loader(trainer.plan, trainer.reading, Quarantine(tmp_path), workers=0, rank=rank, world=world)
            inputs = make_inputs(next(loader.batches(0, 1)), trainer.pool, training, False, CPU.device)
            sums += objective.backward(inputs, trainer.scaler)
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:  # of several processes the mean is taken
                torch.testing.assert_close(parameter.grad / world, wanted[name], rtol=1e-3, atol=1e-5)
        assert objective.value(sums) == pytest.approx(float(loss.detach()), rel=1e-4)
        assert sums[:, 4].sum() == 3 and not sums[0, 3:5].any()


@pytest.mark.parametrize("per_source", [False, True])
def test_where_nothing_is_sure_training_is_as_without(small_tables: Small, tmp_path: Path, per_source: bool) -> None:
    """To the bit, running statistics and dropout too."""
    ends = []
    for name, given in (("off", None), ("on", {"confidence": 1.0})):
        values = settings("slowonly_r18") | {"consistency": given, "norm_per_source": per_source}
        values["network"] |= {"dropout": 0.3}
        trainer = trainer_of(small_tables, tmp_path / name, Training.model_validate(values))
        for step in (0, 1):
            trainer.take_step(batch_of(trainer, step))
        ends.append(trainer.network.state_dict())
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]) or name.endswith("num_batches_tracked")


@pytest.mark.parametrize("frozen", [False, True])
def test_it_trains_and_goes_on_with_the_same_bits(
    small_tables: Small, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    values: dict[str, Any] = settings("tsn_r18")
    values |= {"epochs": 1, "checkpoint_every": 0.5, "consistency": {"confidence": 0.3}}
    if frozen:
        values["network"]["init"] = {"checkpoint": str(start)}
        values |= {"trunk_views": 2, "optimiser": {"kind": "adamw", "lr": 0.01, "trunk_lr_scale": 0}}
    else:
        values["precision"] = "bf16"
    training = Training.model_validate(values)
    pool, straight, broken = pool_of(small_tables, training), tmp_path / "runs/straight", tmp_path / "runs/broken"
    ends = [train(training, pool, straight, 3)]

    def stop(trainer: Trainer) -> None:
        written(trainer)
        raise KeyboardInterrupt

    written = Trainer.checkpoint
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "checkpoint", stop)
        train(training, pool, broken, 3)
    assert 0 < len(log_of(broken)) < len(log_of(straight))
    ends.append(train(training, pool, broken, 3))
    assert (broken / "log.jsonl").read_bytes() == (straight / "log.jsonl").read_bytes()
    one, other = (load_checkpoint(end.checkpoint)[0].state_dict() for end in ends)
    assert all(torch.equal(one[name], other[name]) for name in one)
    sources = log_of(straight)[-1]["sources"]
    assert "consistency" not in sources["clips"]
    told = [facts["consistency"] for name, facts in sources.items() if name != "clips"]
    assert told and all(facts["sure"] == 1 and 0 < facts["loss"] < math.inf for facts in told)


def test_a_state_that_counted_other_columns_goes_on(small_tables: Small, tmp_path: Path) -> None:
    """Those of an earlier version, or of other sources; what stands in the log's next line is counted anew."""
    trainer = trainer_of(small_tables, tmp_path, Training.model_validate(settings("slowonly_r18")))
    trainer.at.tally.sums = torch.zeros(4, 3, dtype=torch.float64)
    trainer.at.step = trainer.at.tally.steps = 1
    trainer.checkpoint()
    state = load_state(tmp_path)
    assert state is not None
    again = trainer_of(small_tables, tmp_path, trainer.training)
    again.restore(state)
    assert again.at.step == 1 and again.at.tally.steps == 0 and again.at.tally.sums.shape == new_sums(again.pool).shape
