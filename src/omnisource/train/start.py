"""The network with which a training starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from omnisource.errors import UserError
from omnisource.networks import Network, create, freeze_norm, freeze_trunk, initialise
from omnisource.recipe import Training
from omnisource.train.distributed import Ranks
from omnisource.workspace import content_of

_FREE = ("workers", "cache_bytes", "checkpoint_every", "checkpoint_seconds")


def settings_of(training: Training) -> dict[str, Any]:
    """The settings of a training, JSON-able, with the content of the weights that it starts from in their names' place.

    Raises:
        UserError: the weights can't be read.
    """
    settings: dict[str, Any] = training.model_dump(mode="json")
    init = settings["network"]["init"]
    for key, name in init.items():
        if name is not None and name != "package":
            init[key] = content_of(Path(name), f"network.init.{key}")
    return settings


def essential_settings_of(training: Training) -> dict[str, Any]:
    """`settings_of` without those that do not change what a training computes."""
    return {key: value for key, value in settings_of(training).items() if key not in _FREE}


def start_network(training: Training, classes: Sequence[str], seed: int, ranks: Ranks) -> Network:
    """The training's network in training mode on its device, its weights drawn from `seed` or as `init` says.

    What `norm: frozen` and `trunk_lr_scale: 0` fix is fixed: whatever shares the network among processes must know.

    Raises:
        UserError: no such network, weights that do not fit it, or norms that several CPUs can't have.
    """
    settings, init = training.network, training.network.init
    torch.manual_seed(seed)
    channels = 2 if training.input.modality == "flow" else 3
    network = create(settings.name, len(classes), channels, settings.dropout, **settings.options)
    if init.imagenet:
        initialise(network, "imagenet", None if init.imagenet == "package" else Path(init.imagenet))
    elif init.checkpoint:
        initialise(network, "checkpoint", Path(init.checkpoint), classes)
    network.recompute = training.checkpointing
    network.to(ranks.device)
    if training.optimiser.trunk_lr_scale == 0:
        freeze_trunk(network)
    if settings.norm == "frozen":
        freeze_norm(network)
    elif settings.norm == "sync" and ranks.world > 1:
        if ranks.device.type == "cpu":
            raise UserError("network.norm: sync needs GPUs, these processes train on CPUs; set it to train or frozen")
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return network.train()
