"""Exported networks answer as the original does."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import omnisource
from omnisource.errors import UserError
from omnisource.media import write_video
from omnisource.networks import Meta, create, initialise, save_checkpoint
from omnisource.predict import export
from omnisource.predict.export import TOLERANCE


def checkpoint_of(folder: Path, name: str, size: int = 40, **options: Any) -> Path:
    torch.manual_seed(0)
    if name == "tsn_efficientnet_lite0":  # what `init` writes; with weights drawn at random its features vanish
        network, scale = create(name, 3, **options), 0.05
        initialise(network, "imagenet", None)
    else:
        network, scale = create(name, 3, base_width=8, **options), 1.0
    torch.nn.init.normal_(network.head.weight, std=scale)  # logits of order 1, so that a difference would show
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, network, Meta(("a", "b", "c"), frames=4, stride=2, size=size, notes={"short_side": 48}))
    return path


def film(path: Path) -> Path:
    random = np.random.default_rng(0)
    frames = ((n / 10, random.integers(0, 255, (48, 64, 3)).astype(np.uint8)) for n in range(25))
    write_video(path, frames, options={"crf": "20"})
    return path


@pytest.mark.parametrize(
    ("name", "options", "taken"),
    [
        ("slowonly_r18", {}, "3, 4, 40, 40"),
        ("tsn_r18", {}, "3, snippets, 40, 40"),
        ("tsn_efficientnet_lite0", {"consensus": "mean-std-slope"}, "3, snippets, 40, 40"),
    ],
)
def test_onnx_recognises_files_as_the_checkpoint_does(
    tmp_path: Path, name: str, options: dict[str, str], taken: str
) -> None:
    checkpoint, video = checkpoint_of(tmp_path, name, **options), film(tmp_path / "v.mp4")
    assert export(checkpoint, tmp_path / "n.onnx") <= TOLERANCE
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)).save(tmp_path / "i.png")
    ours, theirs = (omnisource.load(path, workers=1) for path in (checkpoint, tmp_path / "n.onnx"))
    for file, settings in ((video, {}), (video, {"clips": 5, "crops": 3}), (tmp_path / "i.png", {})):
        expected, found = ours(file, **settings), theirs(file, **settings)
        assert expected.probs is not None and found.probs is not None
        np.testing.assert_allclose(found.probs, expected.probs, atol=1e-4)
        assert [guess.label for guess in found.top] == [guess.label for guess in expected.top]
    with pytest.raises(UserError, match=re.escape(f"was exported for clips (N, {taken})")):
        omnisource.load(tmp_path / "n.onnx").network(torch.zeros(1, 3, 4, 48, 48))


def test_a_2d_network_of_torch_export_takes_any_number_of_snippets(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, "tsn_r18", consensus="mean-std-slope")
    assert export(checkpoint, tmp_path / "n.pt2") <= TOLERANCE
    module = torch.export.load(tmp_path / "n.pt2").module()
    clip = torch.randn(2, 3, 9, 40, 40)
    with torch.inference_mode():
        np.testing.assert_allclose(module(clip), omnisource.load(checkpoint).network(clip), atol=TOLERANCE)


def test_torch_export_is_checked_and_loads(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, "slowonly_r18")
    assert export(checkpoint, tmp_path / "n.pt2", frames=6, size=64) <= TOLERANCE
    header = {"omnisource": ""}
    module = torch.export.load(tmp_path / "n.pt2", extra_files=header).module()
    told = json.loads(header["omnisource"])
    assert (told["frames"], told["size"]) == (6, 64), "by which `predict` cuts its clips"
    assert told["notes"] == {"short_side": 77}, "frames are as much larger than the crop as before: 64 * 48 / 40"
    clip = torch.randn(1, 3, 6, 64, 64)
    with torch.inference_mode():
        np.testing.assert_allclose(module(clip), omnisource.load(checkpoint).network(clip), atol=TOLERANCE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n.pt2", "slowonly_r18.safetensors"]


def test_refusals(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, "slowonly_r18")
    with pytest.raises(UserError, match=r"name it .onnx \(ONNX\) or .pt2"):
        export(checkpoint, tmp_path / "n.trt")
    with pytest.raises(UserError, match=r"at least .* pixels"):
        export(checkpoint, tmp_path / "n.onnx", size=8)
    with pytest.raises(UserError, match="can't be written"):
        export(checkpoint, checkpoint / "n.pt2")
    with pytest.raises(UserError, match=r"n.pt2: torch.export files are for your own runtime"):
        omnisource.load(tmp_path / "n.pt2")
    (tmp_path / "x.onnx").write_bytes(b"\x08\x01nothing")
    with pytest.raises(UserError, match="not an ONNX file that `omnisource export` wrote"):
        omnisource.load(tmp_path / "x.onnx")
    with pytest.raises(UserError, match="no such file"):
        omnisource.load(tmp_path / "y.onnx")


def header_only(path: Path, num_classes: int, **meta: Any) -> Path:
    """An ONNX file of two logits that says of itself what it likes."""
    onnx = pytest.importorskip("onnx")
    shapes = {"clips": ["batch", 3, 4, 40, 40], "logits": ["batch", 2]}
    clips, logits = (onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items())
    nodes = [
        onnx.helper.make_node("Slice", ["clips", "from", "to", "axes"], ["part"]),
        onnx.helper.make_node("Flatten", ["part"], ["logits"]),
    ]
    given = {"from": [0, 0, 0, 0], "to": [1, 1, 1, 2], "axes": [1, 2, 3, 4]}
    numbers = [onnx.helper.make_tensor(name, 7, [4], values) for name, values in given.items()]
    graph = onnx.helper.make_graph(nodes, "g", [clips], [logits], numbers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    facts = {"frames": 4, "stride": 2, "size": 40} | meta
    header = {"network": "n", "num_classes": num_classes, "in_channels": 3, "spatial": False, "meta": facts}
    onnx.helper.set_model_props(model, {"omnisource": json.dumps(header)})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("classes", "meta", "expected"),
    [
        (5, {}, "not an ONNX file that `omnisource export` wrote .5 classes"),
        (2, {"classes": "ab"}, "its classes are no names"),
        (2, {"classes": 2}, "its classes are no names"),
        (2, {"classes": ["a"]}, "1 class names for 2 classes"),
        (2, {"mean": [1.0]}, "mean and std are not of 3 channels"),
        (2, {"std": [1.0, 0.0, 1.0]}, "a std is 0"),
        (2, {"std": [1.0, None, 1.0]}, "not finite numbers"),
        (2, {"notes": [1]}, "its notes are no mapping"),
        (2, {"frames": 10**12}, "frames"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    tmp_path: Path, classes: int, meta: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        omnisource.load(header_only(tmp_path / "n.onnx", classes, **meta))


def test_a_header_that_fits_is_taken(tmp_path: Path) -> None:
    assert omnisource.load(header_only(tmp_path / "n.onnx", 2, classes=["a", "b"])).classes == ["a", "b"]
