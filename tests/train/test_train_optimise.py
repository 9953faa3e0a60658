"""The learning rate over time, which parameters get which rate and decay, and the average of the weights."""

from typing import Any

import pytest
import torch

from omnisource.networks import Network, create
from omnisource.recipe import Optimiser
from omnisource.train.optimise import Average, build_optimiser, rate, set_rate


@pytest.fixture
def network() -> Network:
    return create("tsn_r18", 3, base_width=8)


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"schedule": "constant"}, {0: 1, 5: 1, 10: 1}),
        ({"schedule": "cosine"}, {0: 1, 2.5: 0.8535534, 5: 0.5, 7.5: 0.1464466, 10: 0, 11: 0}),
        ({"schedule": "step", "steps": [4, 8]}, {0: 1, 3.99: 1, 4: 0.1, 7.99: 0.1, 8: 0.01, 10: 0.01}),
        ({"schedule": "constant", "warmup_epochs": 2}, {0: 0.1, 1: 0.55, 1.5: 0.775, 2: 1, 10: 1}),
        ({"schedule": "cosine", "warmup_epochs": 2}, {0: 0.1, 1: 0.55, 2: 0.9045085, 5: 0.5, 10: 0}),
        ({"schedule": "step", "steps": [1], "warmup_epochs": 2}, {0: 0.1, 1: 0.55, 2: 0.1}),
    ],
)
def test_the_rate_over_ten_epochs(settings: dict[str, Any], rates: dict[float, float]) -> None:
    given = Optimiser(lr=0.02, **settings)
    found = {epoch: rate(given, epoch, 10) for epoch in rates}
    assert found == pytest.approx({epoch: 0.02 * share for epoch, share in rates.items()}, abs=1e-8)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("decay_norms", [False, True])
def test_each_parameter_has_its_rate_and_decay(network: Network, kind: Any, decay_norms: bool) -> None:
    settings = Optimiser(kind=kind, decay_norms=decay_norms, trunk_lr_scale=0.25, weight_decay=0.05, momentum=0.7)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    frozen = next(iter(network.parameters()))
    frozen.requires_grad_(False)
    optimiser = build_optimiser(network, settings)
    set_rate(optimiser, 0.5)
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    head = {id(parameter) for parameter in network.head.parameters()}
    assert head and found == {
        name: (
            0.5 if id(parameter) in head else 0.125,
            0.05 if decay_norms or parameter.ndim > 1 else 0.0,
        )
        for name, parameter in network.named_parameters()
        if parameter is not frozen
    }
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(found)
    momenta = {group["betas"][0] if kind == "adamw" else group["momentum"] for group in optimiser.param_groups}
    assert momenta == {0.7} and isinstance(optimiser, torch.optim.AdamW) == (kind == "adamw")


def test_the_average_follows_weights_slowly_and_statistics_at_once(network: Network) -> None:
    average = Average(network, 0.75)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained = dict(network.named_parameters())
    with torch.no_grad():
        for value in network.state_dict().values():
            value.add_(1)
    average.update(network, 1000)
    assert average.weights.keys() == before.keys() and len(trained) < len(before)
    for name, value in average.weights.items():
        torch.testing.assert_close(value, before[name] + (0.25 if name in trained else 1))
    other = Average(network, 0.75)
    other.load(average.weights)
    average.update(network, 1001)  # what was loaded is a copy
    for name, value in other.weights.items():
        torch.testing.assert_close(value, before[name] + (0.25 if name in trained else 1))
    # In the first steps hardly anything is left of the weights before them.
    for step, share in ((0, 0.1), (1, 2 / 11), (25, 26 / 35), (26, 0.75), (40, 0.75)):
        early = Average(network, 0.75)
        early.load(before)
        early.update(network, step)
        for name, value in early.weights.items():
            torch.testing.assert_close(value, before[name] + (1 - share if name in trained else 1))
