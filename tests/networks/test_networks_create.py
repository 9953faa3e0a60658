"""Every network that can be created: shapes, gradients, names, options, bad input."""

import pytest
import torch

from omnisource import networks
from omnisource.errors import UserError

SMALL: dict[str, dict[str, int]] = {
    "tsn_r18": {"base_width": 8},
    "tsn_r50": {"base_width": 8},
    "tsn_efficientnet_b0": {},
    "tsn_efficientnet_lite0": {},
    "slowonly_r18": {"base_width": 8},
    "slowonly_r50": {"base_width": 8},
    "ircsn_r50": {"base_width": 8},
    "ipcsn_r50": {"base_width": 8},
    "i3d_r50": {"base_width": 8},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_training_step_reaches_every_weight(name: str) -> None:
    torch.manual_seed(0)
    network = networks.create(name, 5, **SMALL[name])
    x = torch.randn(2, 3, 8, 64, 64)
    with torch.no_grad():  # residual branches start at zero, which would hide a branch without gradient
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.weight.fill_(1)
    features, logits = network.features(x), network(x)
    assert logits.shape == (2, 5)
    assert features.shape == ((2, 8, network.feature_dim) if network.spatial else (2, network.feature_dim))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 4])).backward()
    for key, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", ["tsn_r18", "slowonly_r18"])
def test_logits_are_the_head_on_the_features(name: str) -> None:
    network = networks.create(name, 5, base_width=8).eval()
    x = torch.randn(2, 3, 3, 32, 64)
    with torch.no_grad():
        features = network.features(x)
        pooled = features.mean(1) if network.spatial else features
        torch.testing.assert_close(network(x), network.head(pooled))


def test_a_spatial_network_sees_each_snippet_alone() -> None:
    network = networks.create("tsn_r18", 5, base_width=8).eval()
    x = torch.randn(1, 3, 3, 64, 64)
    with torch.no_grad():
        together = network.features(x)[0]
        alone = torch.cat([network.features(x[:, :, i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_dropout_and_flow_are_settings() -> None:
    assert networks.create("tsn_r18", 2, base_width=8).dropout.p == 0.4
    assert networks.create("slowonly_r18", 2, base_width=8, dropout=0.1).dropout.p == 0.1
    flow = networks.create("slowonly_r18", 2, in_channels=2, base_width=8)
    assert flow(torch.randn(2, 2, 4, 32, 32)).shape == (2, 2)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("slowonly_r51", {}, "slowonly_r50"),
        ("slowonly_r50", {"width": 3}, "base_width"),
        ("slowonly_r50", {"base_width": 0}, "base_width"),
        ("slowonly_r50", {"dropout": 1.5}, "dropout"),
        ("qqqq", {}, "choose from"),
    ],
)
def test_bad_requests_say_what_would_be_right(name: str, options: dict[str, float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        networks.create(name, 5, **options)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 2, 4, 64, 64), (1, 3, 4, 16, 64), (1, 3, 0, 64, 64)])
def test_clips_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    network = networks.create("slowonly_r18", 5, base_width=8)
    with pytest.raises(UserError, match="slowonly_r18 takes clips"):
        network(torch.zeros(shape))


def test_frozen_norms_stay_frozen_in_training() -> None:
    network = networks.create("slowonly_r18", 3, base_width=8)
    networks.freeze_norm(network)
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items() if "norm" in key}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(torch.randn(2, 3, 4, 32, 32)).sum().backward()
    optimizer.step()
    after = network.state_dict()
    assert before and all(torch.equal(value, after[key]) for key, value in before.items())
    assert network.dropout.training


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("slowonly_r50", {"base_width": 8}),
        ("ircsn_r50", {"base_width": 8}),
        ("ipcsn_r50", {"base_width": 8}),
        ("i3d_r50", {"base_width": 8}),
        ("tsn_r18", {"base_width": 8}),
        ("i3d_inception", {}),
        ("tsn_efficientnet_lite0", {}),
    ],
)
@pytest.mark.parametrize("frames", [5, 8])
def test_gradients_with_frozen_norms_are_those_of_the_plain_form(
    name: str, options: dict[str, int], frames: int
) -> None:
    torch.manual_seed(0)
    gradients = []
    network = networks.create(name, 3, dropout=0, **options).double()
    networks.freeze_norm(network)
    network.train()
    x = torch.randn(1, 3, frames, 32, 32, dtype=torch.double)
    for plain in (False, True):
        networks.use_plain_form(network, plain)
        network.zero_grad()
        network(x).square().sum().backward()
        gradients.append({key: p.grad for key, p in network.named_parameters() if p.grad is not None})
    fast, plain_form = gradients
    assert fast.keys() == plain_form.keys() and any(float(value.abs().max()) > 0 for value in fast.values())
    for key, value in fast.items():
        torch.testing.assert_close(value, plain_form[key], msg=key)


@pytest.mark.parametrize("name", SMALL)
def test_frozen_norms_copy_no_gradients(name: str) -> None:
    """A change in place of a view would cost a copy of the whole gradient each time."""
    network = networks.create(name, 3, **SMALL[name])
    networks.freeze_norm(network)
    network.train()
    waiting = [network(torch.randn(1, 3, 8, 64, 64)).grad_fn]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    assert len(seen) > 50 and not [node for node in seen if "CopySlices" in node.name()]


def test_recomputing_changes_neither_gradients_nor_statistics() -> None:
    torch.manual_seed(0)
    plain = networks.create("slowonly_r18", 3, base_width=8, dropout=0)
    saving = networks.create("slowonly_r18", 3, base_width=8, dropout=0)
    saving.load_state_dict(plain.state_dict())
    saving.recompute = True
    x = torch.randn(2, 3, 4, 32, 32)
    for network in (plain, saving):
        network(x).square().sum().backward()
    for (key, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)
    for key, value in plain.state_dict().items():
        if "num_batches" not in key:
            torch.testing.assert_close(value, saving.state_dict()[key], msg=key)


@pytest.mark.parametrize("name", ["slowonly_r50", "ircsn_r50", "tsn_efficientnet_b0"])
def test_training_in_half_precision_follows_full_precision(name: str) -> None:
    torch.manual_seed(0)
    network = networks.create(name, 3, dropout=0, **SMALL[name])
    x, y = torch.randn(2, 3, 4, 64, 64), torch.tensor([0, 2])
    gradients = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            torch.nn.functional.cross_entropy(network(x), y).backward()
        gradients.append(network.head.weight.grad.clone())
    full, half = gradients
    assert torch.nn.functional.cosine_similarity(full.flatten(), half.flatten(), 0) > 0.99


@pytest.mark.parametrize("consensus", ["mean-std", "mean-std-slope"])
@pytest.mark.parametrize("name", ["tsn_r18", "tsn_efficientnet_lite0"])
def test_a_consensus_that_sees_change(name: str, consensus: str) -> None:
    options = {"base_width": 8} if name == "tsn_r18" else {}
    torch.manual_seed(0)
    network = networks.create(name, 3, consensus=consensus, **options).eval()
    clips = torch.randn(2, 3, 4, 64, 64)
    with torch.no_grad():
        features = network.features(clips)
        mean, spread, *slope = network.agree(features).split(features.shape[2], 1)
        assert torch.equal(mean, features.mean(1)) and (spread > 0).all()
        assert network.feature_dim == (2 + len(slope)) * features.shape[2]
        torch.testing.assert_close(spread, features.std(1, correction=0), atol=4e-3, rtol=1e-3)
        backwards = network.agree(features.flip(1)).split(features.shape[2], 1)
        torch.testing.assert_close(backwards[1], spread)
        assert len(slope) == (consensus == "mean-std-slope")
        for way in slope:  # the other way round in time
            torch.testing.assert_close(backwards[2], -way)
            times = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])
            torch.testing.assert_close(way, (features * times[:, None]).mean(1))
        # A single snippet changes as training clips usually do.
        network.usual_change.copy_(torch.arange(len(network.usual_change)))
        alone = network.agree(features[:, :1])
        assert torch.equal(alone[:, : features.shape[2]], features[:, 0])
        assert torch.equal(alone[:, features.shape[2] :], network.usual_change.expand(2, -1))
    network.train()
    network(clips[:, :, :1]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    with pytest.raises(UserError, match="mean-std"):
        networks.create(name, 3, consensus="median", **options)
