"""Exported networks answer as the original does."""

from pathlib import Path

import numpy as np
import pytest
import torch

import omnisource
from omnisource.errors import UserError
from omnisource.media import write_video
from omnisource.networks import Meta, create, save_checkpoint
from omnisource.predict import export
from omnisource.predict.export import TOLERANCE


def checkpoint_of(folder: Path, name: str, size: int = 40) -> Path:
    torch.manual_seed(0)
    network = create(name, 3, base_width=8)
    torch.nn.init.normal_(network.head.weight)  # logits of order 1, so that a difference would show
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, network, Meta(("a", "b", "c"), frames=4, stride=2, size=size, notes={"short_side": 48}))
    return path


def film(path: Path) -> Path:
    random = np.random.default_rng(0)
    frames = ((n / 10, random.integers(0, 255, (48, 64, 3)).astype(np.uint8)) for n in range(25))
    write_video(path, frames, options={"crf": "20"})
    return path


@pytest.mark.parametrize("name", ["slowonly_r18", pytest.param("tsn_r18", marks=pytest.mark.slow)])
def test_onnx_recognises_files_as_the_checkpoint_does(tmp_path: Path, name: str) -> None:
    checkpoint, video = checkpoint_of(tmp_path, name), film(tmp_path / "v.mp4")
    assert export(checkpoint, tmp_path / "n.onnx") <= TOLERANCE
    # A 2D network is exported for its number of snippets.
    ours, theirs = (omnisource.load(path, workers=1)(video, clips=4) for path in (checkpoint, tmp_path / "n.onnx"))
    assert ours.probs is not None and theirs.probs is not None
    np.testing.assert_allclose(theirs.probs, ours.probs, atol=1e-4)
    assert [guess.label for guess in theirs.top] == [guess.label for guess in ours.top]
    with pytest.raises(UserError, match=r"was exported for clips \(N, 3, 4, 40, 40\)"):
        omnisource.load(tmp_path / "n.onnx").network(torch.zeros(1, 3, 4, 48, 48))


def test_torch_export_is_checked_and_loads(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, "slowonly_r18")
    assert export(checkpoint, tmp_path / "n.pt2", frames=6, size=64) <= TOLERANCE
    module = torch.export.load(tmp_path / "n.pt2").module()
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
    (tmp_path / "x.onnx").write_bytes(b"\x08\x01nothing")
    with pytest.raises(UserError, match="not an ONNX file that `omnisource export` wrote"):
        omnisource.load(tmp_path / "x.onnx")
    with pytest.raises(UserError, match="no such file"):
        omnisource.load(tmp_path / "y.onnx")
