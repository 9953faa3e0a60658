"""The network with which a training starts."""

from pathlib import Path

import pytest
import torch
from torch import nn

from omnisource.errors import UserError
from omnisource.networks import Meta, create, norms, save_checkpoint
from omnisource.recipe import Optimiser, Training
from omnisource.train.distributed import Ranks
from omnisource.train.start import start_network

ALONE = Ranks(0, 1, torch.device("cpu"))
FIVE = ("jump", "run", "sit", "stand", "walk")


def training(name: str = "slowonly_r18", **network: object) -> Training:
    options = {"base_width": 8} if name.startswith("slowonly") else {}
    return Training.model_validate({"network": {"name": name, "options": options} | network})


def test_the_seed_draws_the_weights() -> None:
    first, again, other = (start_network(training(), FIVE, seed, ALONE).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert first["head.weight"].shape[0] == 5


def test_frozen_norms_do_not_learn() -> None:
    network = start_network(training(norm="frozen"), FIVE, 0, ALONE)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    assert network.training and norms
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)


def test_norms_of_several_cpus_are_not_synchronised() -> None:
    assert start_network(training(norm="sync"), FIVE, 0, ALONE).training
    with pytest.raises(UserError, match=r"network\.norm: sync needs GPUs"):
        start_network(training(norm="sync"), FIVE, 0, Ranks(1, 2, torch.device("cpu")))


def test_a_fixed_trunk_is_fixed_before_processes_share_the_network() -> None:
    # Whoever averages gradients waits for those of all parameters that ask for one when the network is wrapped.
    begin = training().model_copy(update={"optimiser": Optimiser(trunk_lr_scale=0)})
    network = start_network(begin, FIVE, 0, ALONE)
    assert [name for name, value in network.named_parameters() if value.requires_grad] == ["head.weight", "head.bias"]
    assert network.training and not any(norm.training for norm in norms(network))


def test_imagenet_weights_are_the_packages() -> None:
    lite = "tsn_efficientnet_lite0"
    first, other = (start_network(training(lite, init={"imagenet": "package"}), FIVE, seed, ALONE) for seed in (1, 2))
    trunk = [name for name in first.state_dict() if not name.startswith("head.")]
    assert all(torch.equal(first.state_dict()[name], other.state_dict()[name]) for name in trunk)


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.safetensors"):
        start_network(training(init={"checkpoint": str(tmp_path / "none.safetensors")}), FIVE, 0, ALONE)


def test_a_classifier_follows_its_classes_by_name(tmp_path: Path) -> None:
    """A checkpoint's outputs may stand in another order, or be of as many other classes."""
    there = create("slowonly_r18", 3, base_width=8)
    save_checkpoint(tmp_path / "there.safetensors", there, Meta(("run", "sit", "walk")))
    begin = training(init={"checkpoint": str(tmp_path / "there.safetensors")})
    drawn = start_network(training(), ("run", "sit", "jump"), 0, ALONE).head.weight
    for classes, expected in (
        (("run", "sit", "walk"), there.head.weight),
        (("walk", "run", "sit"), there.head.weight[[2, 0, 1]]),
        (("run", "sit", "jump"), drawn),
    ):
        network = start_network(begin, classes, 0, ALONE)
        assert torch.equal(network.head.weight, expected)
        assert torch.equal(network.stem.conv.weight, there.stem.conv.weight)
