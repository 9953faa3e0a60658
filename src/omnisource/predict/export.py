"""Networks for other runtimes: ONNX and torch.export, each checked against the original before it is kept."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omnisource.errors import UserError
from omnisource.networks import Meta, Network, fused, load_checkpoint

TOLERANCE = 1e-4  # of a logit
_HEADER = "omnisource"
_INPUT, _OUTPUT = "clips", "logits"


def export(checkpoint: Path, out: Path, *, frames: int | None = None, size: int | None = None) -> float:
    """Writes a checkpoint as `out`: ONNX (.onnx) or torch.export (.pt2), by its suffix.

    The exported network takes float32 (N, C, T, size, size), normalised with the checkpoint's mean and std, any N, and
    gives logits (N, classes). A 2D network takes any number T of snippets. It is compared with the original on random
    clips of two batch sizes, of a 2D network also on other numbers of snippets.

    Args:
        frames, size: T (of a 3D network) and the side of a crop; default: those of the training.

    Returns:
        The largest difference of a logit.

    Raises:
        UserError: another suffix, a missing extra, a file that can't be written, or outputs that differ by more than
            1e-4; then nothing is written.
    """
    writers: dict[str, Callable[[Network, Meta, Tensor, Path], Callable[[Tensor], Tensor]]] = {
        ".onnx": _write_onnx,
        ".pt2": _write_pt2,
    }
    if out.suffix not in writers:
        raise UserError(f"{out}: name it .onnx (ONNX) or .pt2 (torch.export)")
    network, meta = load_checkpoint(checkpoint)
    meta = _cut(meta, frames or meta.frames, size or meta.size)
    length, side = meta.frames, meta.size
    shapes = [(2, length), (3, length)]
    if network.spatial:  # the first is what the exporters are shown: with one snippet they would take T for constant
        shapes = [(2, max(2, length)), (3, length + 1), (1, 1)]
    random = torch.Generator().manual_seed(0)
    clips = [torch.randn((n, network.in_channels, t, side, side), generator=random) for n, t in shapes]
    with torch.inference_mode(), fused(network):
        expected = [network(clip) for clip in clips]
    partial = out.with_name(f".{out.stem}.part{out.suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _quiet():
            run = writers[out.suffix](network, meta, clips[0], partial)
        with torch.inference_mode():
            found = [run(clip) for clip in clips]
        worst = max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True))
        if not worst <= TOLERANCE:
            raise UserError(
                f"{out}: the exported network differs from the original by {worst:.2g} in a logit "
                f"(limit {TOLERANCE:g}); nothing was written"
            )
        partial.replace(out)
    except OSError as error:
        raise UserError(f"{out}: can't be written ({error.strerror}); name another file or mend its folder") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return worst


def _cut(meta: Meta, frames: int, size: int) -> Meta:
    """With clips of so many frames and crops of that size, cut from frames of which they show as much as before."""
    notes, short_side = dict(meta.notes), meta.notes.get("short_side")
    if isinstance(short_side, int):
        notes["short_side"] = max(size, round(short_side * size / meta.size))
    return replace(meta, frames=frames, size=size, notes=notes)


class OnnxNetwork(Network):
    """An exported network behind the interface of `Network`; onnxruntime computes on the CPU."""

    def __init__(self, header: dict[str, Any], session: Any) -> None:
        super().__init__(int(header["num_classes"]), int(header["in_channels"]), 0.0)
        self.name, self.spatial = str(header["network"]), bool(header["spatial"])
        self._session = session
        self.head = nn.Identity()  # type: ignore[assignment]  # `features` are the logits already

    def features(self, x: Tensor) -> Tensor:
        """float (N, C, T, H, W) -> logits, (N, classes), or (N, 1, classes) where a mean over snippets follows."""
        wanted = self._session.get_inputs()[0].shape  # an axis of any length has a name
        if any(isinstance(side, int) and side != given for side, given in zip(wanted, x.shape, strict=True)):
            shown = ", ".join(str(side) for side in wanted[1:])
            raise UserError(f"{self.name} was exported for clips (N, {shown}), got {tuple(x.shape)}")
        logits = torch.from_numpy(self._session.run([_OUTPUT], {_INPUT: x.cpu().contiguous().numpy()})[0])
        return logits.unsqueeze(1) if self.spatial else logits


def load_onnx(path: Path) -> tuple[OnnxNetwork, Meta]:
    """Loads what `export` wrote as ONNX.

    Raises:
        UserError: the extra is missing, or the file is not ours or damaged.
    """
    runtime = _extra("onnxruntime")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        header = json.loads(session.get_modelmeta().custom_metadata_map[_HEADER])
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in header["meta"].items()
        }
        known = {field.name for field in fields(Meta)}
        network = OnnxNetwork(header, session)
        if session.get_outputs()[0].shape[-1] != network.num_classes:
            raise ValueError(f"{network.num_classes} classes, outputs {session.get_outputs()[0].shape}")
        return network, Meta(**{key: value for key, value in given.items() if key in known})
    except Exception as error:  # onnxruntime raises classes of its own for a broken file
        short = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise UserError(f"{path}: not an ONNX file that `omnisource export` wrote ({short})") from error


def _write_onnx(network: Network, meta: Meta, clip: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    onnx = _extra("onnx")
    _extra("onnxscript")
    program = torch.onnx.export(
        network,
        (clip,),
        input_names=[_INPUT],
        output_names=[_OUTPUT],
        dynamic_shapes=(_free_axes(network),),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    header = {
        "network": network.name,
        "num_classes": network.num_classes,
        "in_channels": network.in_channels,
        "spatial": network.spatial,
        "meta": asdict(meta),
    }
    onnx.helper.set_model_props(model, {_HEADER: json.dumps(header)})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    loaded, _ = load_onnx(path)
    return lambda x: loaded(x)


def _write_pt2(network: Network, meta: Meta, clip: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    program = torch.export.export(network, (clip,), dynamic_shapes=(_free_axes(network),))
    torch.export.save(program, path, extra_files={_HEADER: json.dumps(asdict(meta))})
    module = torch.export.load(path).module()
    return lambda x: torch.as_tensor(module(x))


def _free_axes(network: Network) -> dict[int, Any]:
    """The axes of a clip that stay of any length."""
    axes = {0: torch.export.Dim("batch", min=1)}
    return axes | {2: torch.export.Dim("snippets", min=1)} if network.spatial else axes


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn about what does not concern this network: operators of libraries that are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _extra(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise UserError(f"this needs {name}: `pip install 'omnisource[onnx]'`") from None
