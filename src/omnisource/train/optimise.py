"""Optimiser, learning-rate schedule and weight averaging (paper, section 4)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from omnisource.networks import Network
from omnisource.recipe import Optimiser

_STEP_FACTOR = 0.1


def rate(settings: Optimiser, epoch: float, epochs: float) -> float:
    """The learning rate at `epoch` (a real number: it changes every step) of a training of `epochs`."""
    if epoch < settings.warmup_epochs:
        # From a tenth of the rate, linearly.
        warmed = 0.1 + 0.9 * epoch / settings.warmup_epochs
        return settings.lr * warmed
    return settings.lr * _scheduled(settings, epoch, epochs)


def _scheduled(settings: Optimiser, epoch: float, epochs: float) -> float:
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(epoch / epochs, 1.0)))
    if settings.schedule == "step":
        return _STEP_FACTOR ** sum(epoch >= step for step in settings.steps)
    return 1.0


def build_optimiser(network: Network, settings: Optimiser) -> torch.optim.Optimizer:
    """The optimiser over the parameters that train; each group's `scale` is its rate relative to the schedule's."""
    head = {id(parameter) for parameter in network.head.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            # Scales, shifts and biases are the parameters of one axis.
            decays = settings.decay_norms or parameter.ndim > 1
            key = (1.0 if id(parameter) in head else settings.trunk_lr_scale, settings.weight_decay if decays else 0.0)
            groups.setdefault(key, []).append(parameter)
    described = [
        {"params": parameters, "scale": scale, "weight_decay": decay} for (scale, decay), parameters in groups.items()
    ]
    if settings.kind == "adamw":
        return torch.optim.AdamW(described, lr=settings.lr, betas=(settings.momentum, 0.999))
    return torch.optim.SGD(described, lr=settings.lr, momentum=settings.momentum)


def set_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    """Gives every group its rate."""
    for group in optimiser.param_groups:
        group["lr"] = value * group["scale"]


class Average:
    """An exponential moving average of a network's weights; its buffers are copied.

    At first it forgets faster than `decay` says, (1 + n) / (10 + n) in step n: else the weights before training would
    make up most of it after a few hundred steps.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self._decay = decay
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def update(self, network: Network, step: int) -> None:
        """Moves the average towards the weights after this step, counted from 0."""
        trained = dict(network.named_parameters())
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if name in trained:
                self.weights[name].lerp_(value.detach(), 1 - decay)
            else:
                self.weights[name].copy_(value)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Continues from a stored average."""
        for name, value in weights.items():
            self.weights[name].copy_(value)
