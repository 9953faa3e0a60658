"""Conversion from every layout: complete, strict, and refused where anything is amiss."""

import foreign
import pytest
import reference
import torch
import torch.nn.functional as F

from omnisource import networks
from omnisource.errors import UserError
from omnisource.networks.weights import translate

CASES = {
    "torchvision-resnet": ("tsn_r18", lambda: foreign.torchvision_resnet(18), 1000, {}),
    "torchvision-efficientnet": ("tsn_efficientnet_b0", lambda: foreign.efficientnet_b0("torchvision"), 1000, {}),
    "timm-efficientnet": ("tsn_efficientnet_b0", lambda: foreign.efficientnet_b0("timm"), 1000, {}),
    "efficientnet-pytorch": ("tsn_efficientnet_b0", lambda: foreign.efficientnet_b0("efficientnet-pytorch"), 1000, {}),
    "vmz": ("ircsn_r50", lambda: foreign.vmz_csn(False), 359, {}),
    "vmz ip": ("ipcsn_r50", lambda: foreign.vmz_csn(True), 359, {}),
    "mmaction ir": ("ircsn_r50", lambda: foreign.mmaction_csn(False), 400, {}),
    "mmaction ip": ("ipcsn_r50", lambda: foreign.mmaction_csn(True), 400, {}),
    "pytorchvideo": ("slowonly_r50", lambda: foreign.pytorchvideo(50, False), 400, {}),
    "pytorchvideo csn": ("ircsn_r101", lambda: foreign.pytorchvideo(101, True), 400, {"norm_eps": 1e-5}),
    "pytorch-i3d": ("i3d_inception", foreign.pytorch_i3d, 400, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_layout_converts_whole(case: str) -> None:
    name, make, classes, options = CASES[case]
    state = make()
    with torch.device("meta"):
        network = networks.create(name, classes, **options)
    layout = case.split(" ")[0]
    for asked in ("auto", layout):
        found = translate(state, network, asked)
        assert found.layout == layout
        assert found.state.keys() == network.state_dict().keys()
        assert all(found.state[key].shape == value.shape for key, value in network.state_dict().items())
        assert not found.dropped
    # Each foreign tensor arrived, and arrived once.
    arrived = sorted(
        float(v.double().sum()) for k, v in found.state.items() if "num_batches" not in k and v.numel() > 1
    )
    sent = sorted(float(v.double().sum()) for k, v in state.items() if "num_batches" not in k)
    assert arrived == pytest.approx(sent, abs=1e-9)


def test_a_converted_residual_network_computes_what_the_original_does() -> None:
    state = foreign.torchvision_resnet(18, 10)
    network = networks.create("tsn_r18", 10).eval()
    network.load_state_dict(networks.convert(state, network))
    image = torch.randn(2, 3, 64, 64)

    def norm(x: torch.Tensor, key: str) -> torch.Tensor:
        s = state
        return F.batch_norm(x, s[f"{key}.running_mean"], s[f"{key}.running_var"], s[f"{key}.weight"], s[f"{key}.bias"])

    x = F.max_pool2d(F.relu(norm(F.conv2d(image, state["conv1.weight"], stride=2, padding=3), "bn1")), 3, 2, 1)
    for stage in range(1, 5):
        for block in range(2):
            here, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(norm(F.conv2d(x, state[f"{here}.conv1.weight"], None, stride, 1), f"{here}.bn1"))
            y = norm(F.conv2d(y, state[f"{here}.conv2.weight"], None, 1, 1), f"{here}.bn2")
            if f"{here}.downsample.0.weight" in state:
                x = norm(F.conv2d(x, state[f"{here}.downsample.0.weight"], None, stride), f"{here}.downsample.1")
            x = F.relu(x + y)
    expected = F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    with torch.no_grad():
        torch.testing.assert_close(network(image.unsqueeze(2)), expected, rtol=1e-4, atol=1e-4)


def test_the_reference_wrapper_and_its_extras() -> None:
    case = reference.load("slowonly_r50_4x16")
    state = {**case.state, "data_preprocessor.mean": torch.zeros(3)}
    with torch.device("meta"):
        network = networks.create("slowonly_r50", 400)
    found = translate(state, network)
    assert found.layout == "mmaction"
    assert found.dropped == {
        "data_preprocessor.mean": "the input's normalisation, which the checkpoint's metadata holds"
    }


def test_the_trunk_of_a_network_for_images_and_clips_comes_without_its_two_classifiers() -> None:
    trunk = {f"backbone.{key}": value for key, value in foreign.torchvision_resnet(18).items() if key[:2] != "fc"}
    heads = {f"cls_head.fc{kind}d.4.weight": torch.zeros(9, 512) for kind in (2, 3)}
    with torch.device("meta"):
        network = networks.create("tsn_r18", 5)
    found = translate(trunk | heads, network, new_head=True)
    assert found.layout == "torchvision-resnet" and found.dropped.keys() == heads.keys()
    assert torch.equal(found.state["stem.conv.weight"][:, :, 0], trunk["backbone.conv1.weight"])
    with pytest.raises(UserError, match="no classifier; ask for a new head"):
        translate(trunk | heads, network)


def test_a_converted_network_trains_a_step_and_predicts() -> None:
    network = networks.create("tsn_r18", 10)
    network.load_state_dict(networks.convert(foreign.torchvision_resnet(18, 10), network))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    x, y = torch.randn(2, 3, 2, 64, 64), torch.tensor([1, 7])
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with torch.no_grad():
        assert network.eval()(x).shape == (2, 10)


def _broken(change: str) -> dict[str, torch.Tensor]:
    state = foreign.torchvision_resnet(18, 10)
    match change:
        case "missing":
            del state["layer2.0.conv1.weight"]
        case "unknown":
            state["layer2.0.conv9.weight"] = torch.zeros(1)
        case "shape":
            state["layer2.0.conv1.weight"] = torch.zeros(128, 64, 5, 5)
        case "nan":
            state["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
        case "whole numbers":
            state["layer2.0.conv1.weight"] = torch.zeros(128, 64, 3, 3, dtype=torch.int32)
        case "classes":
            state = foreign.torchvision_resnet(18, 11)
        case "headless":
            del state["fc.weight"], state["fc.bias"]
    return state


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("missing", "conv1.conv.weight and 0 more are missing"),
        ("unknown", "'layer2.0.conv9.weight'"),
        ("shape", r"conv1.conv.weight is \(128, 64, 1, 5, 5\), not \(128, 64, 1, 3, 3\)"),
        ("nan", "not finite"),
        ("whole numbers", "int32"),
        ("classes", r"head.weight is \(11, 512\), not \(10, 512\); ask for a new head"),
        ("headless", "no classifier"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_loaded(change: str, says: str) -> None:
    network = networks.create("tsn_r18", 10)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(UserError, match=says):
        networks.convert(_broken(change), network)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_wrong_layout_names_the_right_ones() -> None:
    network = networks.create("tsn_r18", 10, base_width=64)
    with pytest.raises(UserError, match="keys are unknown in the nearest layout, vmz"):
        networks.convert(foreign.torchvision_resnet(18, 10), network, "vmz")
    with pytest.raises(UserError, match="unknown layout 'caffe'"):
        networks.convert({}, network, "caffe")


@pytest.mark.parametrize("change", ["classes", "headless"])
def test_a_new_head_is_started_when_asked(change: str) -> None:
    network = networks.create("tsn_r18", 10)
    found = translate(_broken(change), network, new_head=True)
    assert torch.equal(found.state["head.weight"], network.head.weight)
    assert set(found.dropped) == ({"head.weight", "head.bias"} if change == "classes" else set())
