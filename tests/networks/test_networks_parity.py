"""The eight networks of shared/parity.

Their rounding in float32 is amplified by depth: computed in float64, irCSN-152 differs from the reference's own
float32 outputs by 8.5e-4. So the reference is met in its own arithmetic (the plain form: torch's Conv3d, then
BatchNorm3d), to 1e-4, and the fast form is then held against the plain one in float64, where rounding is no excuse.
"""

import pytest
import reference
import torch

from omnisource import networks


def _network(case: reference.Case) -> networks.Network:
    network = networks.create(case.network, case.num_classes, in_channels=case.inputs[0].shape[1]).eval()
    network.load_state_dict(networks.convert(case.state, network, "mmaction"))
    return network


QUICK = ("tsn_r50_1x1x3", "slowonly_r50_4x16", "i3d_r50_flow")
ALL = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in reference.NAMES]


@pytest.mark.parametrize("name", ALL)
def test_the_plain_form_gives_the_reference_outputs(name: str) -> None:
    case = reference.load(name)
    network = _network(case)
    networks.use_plain_form(network)
    with torch.no_grad():
        for x, logits, features in zip(case.inputs, case.logits, case.features, strict=True):
            found = network.features(x.contiguous())[0]
            torch.testing.assert_close(found, features.reshape(found.shape), rtol=0, atol=1e-4)
            pooled = found.mean(0) if network.spatial else found
            torch.testing.assert_close(network.head(pooled), logits.flatten(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_the_fast_form_is_the_same_function(name: str) -> None:
    case = reference.load(name)
    network = _network(case).double()
    x = case.inputs[0].double()[:, :, :8, :32, :32]
    with torch.no_grad():
        fast = network(x)
        networks.use_plain_form(network)
        torch.testing.assert_close(fast, network(x.contiguous()), rtol=0, atol=1e-9)


def test_the_fast_form_stays_near_the_reference_in_float32() -> None:
    case = reference.load("slowonly_r50_4x16")
    network = _network(case)
    with torch.no_grad():
        torch.testing.assert_close(network(case.inputs[0])[0], case.logits[0].flatten(), rtol=0, atol=1e-4)
