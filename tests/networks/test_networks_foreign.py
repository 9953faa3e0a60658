"""Networks from elsewhere: real exported files against the networks that they were exported from."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnisource.errors import UserError
from omnisource.networks import ForeignNetwork, create, use_plain_form

CLASSES = ["jump", "wave"]
OUTPUTS = ["wave", "run", "hop", "jump"]  # not in our order, and more than ours


def pictures_network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    network = nn.Sequential(*layers).eval()
    nn.init.normal_(network[-1].weight, std=5.0)
    return network


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    clips = create("slowonly_r18", 4, base_width=8).eval()
    nn.init.normal_(clips.head.weight, std=3.0)
    use_plain_form(clips)
    torch.save(clips.state_dict(), folder / "clips.weights")
    torch.jit.trace(clips, torch.zeros(2, 3, 4, 32, 32)).save(folder / "clips.pt")
    torch.jit.script(pictures_network()).save(folder / "pictures.ts")
    (folder / "broken.pt").write_bytes((folder / "clips.pt").read_bytes()[:5000])
    torch.jit.script(nn.Sequential(pictures_network(), nn.Softmax(1))).save(folder / "probs.pt")
    return folder


def opened(files: Path, name: str, mapping: dict[str, list[str]] | None = None, **options: Any) -> ForeignNetwork:
    given = {"frames": 4, "size": 32} | options
    outputs = given.pop("outputs", OUTPUTS)
    return ForeignNetwork(files / name, CLASSES, outputs, mapping or {}, **given)


def looked(network: ForeignNetwork, x: Tensor) -> Tensor:
    """Probabilities as `infer` computes them."""
    with torch.no_grad():
        return network(x).softmax(1)


def test_a_3d_torchscript_file_gives_the_probabilities_of_its_network(files: Path) -> None:
    original = create("slowonly_r18", 4, base_width=8).eval()
    original.load_state_dict(torch.load(files / "clips.weights", weights_only=True))
    x = torch.randn(3, 3, 4, 32, 32)
    with torch.no_grad():
        wanted = original(x).softmax(1)
    network = opened(files, "clips.pt", layout="NCTHW")
    assert not network.spatial
    found = looked(network, x)
    torch.testing.assert_close(found, torch.stack([wanted[:, 3], wanted[:, 0], wanted[:, 1] + wanted[:, 2]], 1))
    several = looked(opened(files, "clips.pt", {"jump": ["hop", "jump"]}, layout="NCTHW"), x)
    torch.testing.assert_close(several[:, 0], wanted[:, 2] + wanted[:, 3])
    torch.testing.assert_close(several.sum(1), torch.ones(3))


def test_time_before_the_channels(files: Path, tmp_path: Path) -> None:
    class Turned(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.transpose(1, 2))

    inner = torch.jit.load(files / "clips.pt")
    torch.jit.script(Turned(inner)).save(tmp_path / "turned.pt")
    x = torch.randn(2, 3, 4, 32, 32)
    torch.testing.assert_close(
        looked(opened(tmp_path, "turned.pt", layout="NTCHW"), x), looked(opened(files, "clips.pt", layout="NCTHW"), x)
    )


def test_a_2d_file_sees_each_frame_and_its_probabilities_are_averaged(files: Path) -> None:
    x = torch.randn(2, 3, 5, 32, 32)
    with torch.no_grad():
        wanted = pictures_network()(x.transpose(1, 2).flatten(0, 1)).softmax(1).reshape(2, 5, 4).mean(1)
    network = opened(files, "pictures.ts")
    assert network.spatial
    torch.testing.assert_close(looked(network, x)[:, :2], wanted[:, [3, 0]])
    torch.testing.assert_close(looked(opened(files, "probs.pt", gives="probs"), x)[:, :2], wanted[:, [3, 0]])


@pytest.mark.parametrize("fixed", [False, True])
def test_onnx_files_of_any_and_of_a_fixed_batch(tmp_path: Path, fixed: bool) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    shapes = None if fixed else ({0: torch.export.Dim("batch", min=1)},)
    program = torch.onnx.export(
        pictures_network(), (torch.zeros(2, 3, 32, 32),), dynamic_shapes=shapes, dynamo=True, verbose=False
    )
    assert program is not None
    program.save(tmp_path / "pictures.onnx")
    x = torch.randn(3, 3, 1, 32, 32)
    with torch.no_grad():
        wanted = pictures_network()(x[:, :, 0]).softmax(1)
    network = opened(tmp_path, "pictures.onnx")
    torch.testing.assert_close(looked(network, x)[:, :2], wanted[:, [3, 0]], atol=1e-5, rtol=1e-4)
    travelled = pickle.loads(pickle.dumps(network))  # noqa: S301  # as it travels to a cluster
    torch.testing.assert_close(looked(travelled, x), looked(network, x))


def test_a_torchscript_network_travels(files: Path) -> None:
    network = opened(files, "clips.pt", layout="NCTHW")
    travelled = pickle.loads(pickle.dumps(network))  # noqa: S301
    x = torch.randn(2, 3, 4, 32, 32)
    torch.testing.assert_close(looked(travelled, x), looked(network, x))
    assert not travelled.training


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("gone.pt", {}, "cannot be read"),
        ("broken.pt", {}, "not a TorchScript file"),
        ("clips.weights", {}, "name it .onnx"),
        ("clips.pt", {"layout": "NCHW"}, "fails on NCHW inputs"),
        ("pictures.ts", {"outputs": ["jump", "wave", "run"]}, r"gives \(2, 4\) for 2 inputs, not \(2, 3\)"),
        ("pictures.ts", {"outputs": ["jump", "run", "hop", "sit"]}, "no output is called 'wave'"),
        ("pictures.ts", {"outputs": ["jump", "jump", "hop", "wave"]}, "lists 'jump' twice"),
        ("pictures.ts", {"mapping": {"fly": ["hop"]}}, "names 'fly'"),
        ("pictures.ts", {"mapping": {"jump": ["hop"], "wave": ["hop"]}}, "'hop' to two classes"),
        ("pictures.ts", {"gives": "probs"}, "no probabilities"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(files: Path, name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        opened(files, name, **options)
    assert str(files / name) in str(error.value) and "\n" not in str(error.value)


def test_a_broken_onnx_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="not an ONNX network of one input"):
        opened(tmp_path, "broken.onnx")
