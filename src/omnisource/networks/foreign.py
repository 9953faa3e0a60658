"""Networks from elsewhere behind the interface of `Network`: an ONNX or TorchScript file with a class map."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from omnisource.errors import UserError
from omnisource.networks.base import Network

Layout = Literal["NCHW", "NCTHW", "NTCHW"]

_MOST_BYTES = 8 * 2**30
_RUNNERS = (".onnx", ".pt", ".pth", ".ts", ".torchscript")


class ForeignNetwork(Network):
    """Gives, for each of our classes, the probability of its own classes that are mapped to it.

    Its logits are log-probabilities of `len(classes) + 1` outcomes; the last is "none of our classes". A 2D network is
    shown every snippet by itself, and the mean of its probabilities counts.

    Args:
        path: an ONNX file (.onnx, run by onnxruntime) or a TorchScript file (.pt, .pth, .ts, .torchscript).
        classes: our class names.
        outputs: names of its outputs, in order.
        mapping: our class -> its classes; a class not named is mapped to the output of the same name.
        layout: what it takes: pictures (NCHW), or clips with time after (NCTHW) or before the channels (NTCHW).
        gives: what its outputs are.
        frames, size: of a clip, and the side of a picture in pixels.

    Raises:
        UserError: a missing or unreadable file, a class that is not there or mapped twice, or a network that does not
            take such inputs or gives other outputs than one number for each class.
    """

    def __init__(
        self,
        path: Path,
        classes: Sequence[str],
        outputs: Sequence[str],
        mapping: Mapping[str, Sequence[str]],
        *,
        layout: Layout = "NCHW",
        gives: Literal["logits", "probs"] = "logits",
        frames: int = 8,
        size: int = 224,
    ) -> None:
        super().__init__(len(classes) + 1, 3, 0.0)
        self.name, self.spatial = path.name, layout == "NCHW"
        self.head = nn.Identity()  # type: ignore[assignment]  # `features` are the logits already
        self._path, self._layout, self._gives, self._outputs = path, layout, gives, len(outputs)
        self.register_buffer("_sum", _class_map(path, classes, outputs, mapping), persistent=False)
        self._content = _read(path)
        self._open()
        self.eval()
        self._try(torch.zeros(2, 3, 1 if self.spatial else frames, size, size))

    def features(self, x: Tensor) -> Tensor:
        """float (N, 3, T, H, W) -> log-probabilities (N, classes + 1); (N, 1, classes + 1) of a 2D network."""
        count, length = x.shape[0], x.shape[2]
        if self._layout == "NCHW":
            x = x.transpose(1, 2).flatten(0, 1)
        elif self._layout == "NTCHW":
            x = x.transpose(1, 2)
        values = self._run(x.contiguous()).float().to(x.device)
        probs = values.softmax(1) if self._gives == "logits" else values
        probs = probs @ self.get_buffer("_sum").to(probs.device)
        if self.spatial:
            probs = probs.reshape(count, length, -1).mean(1, keepdim=True)
        return probs.clamp_min(1e-12).log()

    def __getstate__(self) -> dict[str, Any]:
        """What runs is left out: it can't travel to another process, but its file's content can."""
        state = self.__dict__.copy()
        state.pop("_run")
        state["_modules"] = {name: module for name, module in self._modules.items() if name != "_script"}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._open()
        self.eval()

    def _open(self) -> None:
        self._run: Callable[[Tensor], Tensor]
        if self._path.suffix == ".onnx":
            self._run = _onnx(self._path, self._content)
            return
        try:
            # TorchScript is a language of its own: unlike a pickle it can't run Python.
            self._script = torch.jit.load(io.BytesIO(self._content), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{self._path}: not a TorchScript file ({_short(error)}); export it again") from None
        self._run = lambda x: self._script(x)

    @torch.inference_mode()
    def _try(self, clips: Tensor) -> None:
        """Runs the network once, so that what does not fit is named before thousands of files are decoded."""
        shape = tuple(clips.transpose(1, 2).flatten(0, 1).shape) if self.spatial else tuple(clips.shape)
        if self._layout == "NTCHW":
            shape = tuple(clips.transpose(1, 2).shape)
        try:
            found = self._run(clips.new_zeros(shape))
        except Exception as error:  # each runtime raises classes of its own
            raise UserError(
                f"{self._path}: fails on {self._layout} inputs {shape} ({_short(error)}); mend layout, frames or size"
            ) from None
        if not isinstance(found, Tensor) or tuple(found.shape) != (shape[0], self._outputs):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"{self._path}: gives {what} for {shape[0]} inputs, not {(shape[0], self._outputs)}; mend `classes`"
            )
        if self._gives == "probs" and not _are_probs(found):
            raise UserError(f"{self._path}: its outputs are no probabilities; write `output: logits`")


def _class_map(
    path: Path, classes: Sequence[str], outputs: Sequence[str], mapping: Mapping[str, Sequence[str]]
) -> Tensor:
    """(outputs, classes + 1) of zeros and ones: where the probability of each output goes."""
    if len(set(outputs)) != len(outputs):
        twice = next(name for name in outputs if list(outputs).count(name) > 1)
        raise UserError(f"{path}: `classes` lists '{twice}' twice")
    if unknown := sorted(set(mapping) - set(classes)):
        raise UserError(f"{path}: `map` names '{unknown[0]}', which is not in the class list")
    places = {name: place for place, name in enumerate(outputs)}
    table = torch.zeros(len(outputs), len(classes) + 1)
    for column, label in enumerate(classes):
        for name in mapping.get(label, [label]):
            if name not in places:
                raise UserError(f"{path}: no output is called '{name}' (for class '{label}'); mend `classes` or `map`")
            if table[places[name]].any():
                raise UserError(f"{path}: `map` gives its class '{name}' to two classes")
            table[places[name], column] = 1
    table[:, -1] = 1 - table.sum(1)
    return table


def _read(path: Path) -> bytes:
    if path.suffix not in _RUNNERS:
        raise UserError(f"{path}: name it .onnx (ONNX) or .pt, .pth, .ts, .torchscript (TorchScript)")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path}: larger than {_MOST_BYTES} bytes, so hardly a network")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend `file`") from None


def _onnx(path: Path, content: bytes) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{path}: ONNX needs onnxruntime: `pip install 'omnisource[onnx]'`") from None
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    try:
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        session = onnxruntime.InferenceSession(content, providers=providers)
        (given,) = session.get_inputs()
    except Exception as error:  # onnxruntime raises classes of its own for a broken file
        raise UserError(f"{path}: not an ONNX network of one input ({_short(error)})") from None
    # A network exported for a fixed batch is run batch by batch; the last one is filled up.
    fixed = given.shape[0] if isinstance(given.shape[0], int) else None

    def run(x: Tensor) -> Tensor:
        each = fixed or len(x)
        parts = []
        for part in torch.split(x.cpu(), each):
            filled = torch.cat([part, part.new_zeros(each - len(part), *part.shape[1:])]).numpy()
            parts.append(torch.from_numpy(session.run(None, {given.name: filled})[0])[: len(part)])
        return torch.cat(parts)

    return run


def _are_probs(values: Tensor) -> bool:
    return bool((values >= -1e-4).all() and ((values.sum(1) - 1).abs() < 1e-2).all())


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:160] if lines else type(error).__name__
