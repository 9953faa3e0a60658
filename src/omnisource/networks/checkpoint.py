"""Our own checkpoints: safetensors, with what is needed to build and feed the network in the metadata."""

import json
import math
import os
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from omnisource.errors import UserError
from omnisource.networks.base import Network
from omnisource.networks.create import create

FORMAT = "omnisource-network-1"
RGB_MEAN, RGB_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""The paper's normalisation (section 4), for pixels from 0 to 255."""


@dataclass(frozen=True)
class Meta:
    """What a checkpoint says beside its weights."""

    classes: tuple[str, ...] = ()
    """Class names in the order of the logits; empty when they are not known."""
    mean: tuple[float, ...] = RGB_MEAN
    std: tuple[float, ...] = RGB_STD
    """Input normalisation per channel, in units of the uint8 pixel: (x - mean) / std."""
    frames: int = 8
    stride: int = 8
    """Frames (or snippets) per clip, and how many source frames lie between two of them."""
    fps: float | None = None
    """Frames a second at which the stride counts; None: each file's own frames."""
    size: int = 224
    """Side of the training crop, pixels."""
    recipe_hash: str = ""
    origin: str = ""
    licence: str = ""
    """Where foreign weights come from and on what terms, when known."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Anything else that JSON can hold, such as the step and the score."""


def save_checkpoint(path: Path, network: Network, meta: Meta) -> None:
    """Writes a network and its metadata; the file appears whole or not at all.

    Raises UserError when `meta.classes` does not match the network, or the file cannot be written.
    """
    if meta.classes and len(meta.classes) != network.num_classes:
        raise UserError(f"{path}: {len(meta.classes)} class names for a network of {network.num_classes} classes")
    # safetensors wants each tensor dense in its own memory; the network keeps channels last.
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    header = {
        "format": FORMAT,
        "network": network.name,
        "num_classes": str(network.num_classes),
        "options": json.dumps(network.options),
        "meta": json.dumps(asdict(meta)),
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, partial, header)
        with partial.open("rb+") as file:
            _sort_header(file)
            os.fsync(file.fileno())
        partial.replace(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: can't be written ({_short(error)}); free some space or mend its permissions"
        ) from error
    finally:
        with suppress(OSError):  # a folder that can't be made, or is a file, holds nothing to remove
            partial.unlink()


def _sort_header(file: BinaryIO) -> None:
    """Sorts the metadata of an open safetensors file.

    The library writes it in another order every time; but the same network is to be the same file, for recipes know
    the weights that they start from by their content.
    """
    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    file.seek(8)
    file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))


def load_checkpoint(path: Path) -> tuple[Network, Meta]:
    """Builds the network that `save_checkpoint` wrote, on the CPU and in evaluation mode.

    Raises UserError when the file is missing, cut off, not one of ours, or holds weights that do not fit the
    network that it names or are not finite.
    """
    header, state = read_safetensors(path)
    if header.get("format") != FORMAT:
        raise UserError(
            f"{path}: not a checkpoint of omnisource; make one of it with "
            f"`omnisource weights convert {path} OUT.safetensors --network NAME`"
        )
    try:
        num_classes, options = int(header["num_classes"]), json.loads(header["options"])
        meta = _read_meta(json.loads(header["meta"]))
        if meta.classes and len(meta.classes) != num_classes:
            raise ValueError(f"{len(meta.classes)} class names for {num_classes} classes")
        with torch.device("meta"):  # no memory is spent on what a damaged header asks for
            network = create(header["network"], num_classes, **options)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError, UserError) as error:
        raise UserError(f"{path}: the header is damaged ({_short(error)}); use another copy") from error
    check_fits(state, network, str(path))
    network.load_state_dict(state, assign=True)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return network.requires_grad_().eval(), meta


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file; raises UserError when it is none."""
    check_file(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({_short(error)}); use another file or copy") from error


def check_file(path: Path) -> None:
    """Raises UserError unless `path` is a file; to open a pipe would be to wait for whoever writes into it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in a name
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: a folder; give the file, of a training its last.safetensors")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: no plain file; copy its content into one")


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, by its content: the length of a header, and its first brace.

    Raises:
        UserError: as `check_file`, or it can't be read.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
            return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= os.fstat(file.fileno()).st_size - 8
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def read_header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors; empty for a file of another kind, or none."""
    if not path.is_file():  # a pipe would be waited for
        return {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError):
        return {}


def read_meta(path: Path) -> Meta | None:
    """What one of our checkpoints says beside its weights; None for another's file, and for a damaged header."""
    header = read_header(path)
    try:
        return _read_meta(json.loads(header["meta"])) if header.get("format") == FORMAT else None
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def read_options(path: Path) -> dict[str, Any]:
    """The options with which the network of one of our checkpoints is built again; none for another's file."""
    header = read_header(path)
    try:
        return dict(json.loads(header["options"])) if header.get("format") == FORMAT else {}
    except (KeyError, ValueError, TypeError):
        return {}


def check_fits(state: dict[str, Tensor], network: Network, where: str) -> None:
    """Raises UserError unless `state` has exactly the network's keys and shapes and only finite numbers."""
    wanted = network.state_dict()
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or extra:
        what = f"lack {missing[0]} and {len(missing) - 1} more" if missing else ""
        what += " and " if missing and extra else ""
        what += f"have unknown {extra[0]} and {len(extra) - 1} more" if extra else ""
        raise UserError(f"{where}: the weights do not fit {network.name}: they {what}")
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise UserError(
                f"{where}: {key} is {tuple(value.shape)}, but {network.name} needs {tuple(wanted[key].shape)}"
            )
        if not torch.isfinite(value).all():
            raise UserError(f"{where}: {key} holds values that are not finite; the training that wrote it diverged")


def _read_meta(given: dict[str, Any]) -> Meta:
    known = {f.name for f in fields(Meta)}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items() if key in known
    }
    meta = Meta(**values)
    numbers = (*meta.mean, *meta.std)
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in numbers) or 0 in meta.std:
        raise ValueError("mean and std must be finite numbers")
    if not all(isinstance(v, int) and v > 0 for v in (meta.frames, meta.stride, meta.size)):
        raise ValueError("frames, stride and size must be positive")
    if meta.fps is not None and not (isinstance(meta.fps, int | float) and 0 < meta.fps < math.inf):
        raise ValueError("fps must be a positive number")
    if not isinstance(meta.notes, dict):
        raise ValueError("notes must be a mapping")
    if not all(isinstance(name, str) for name in meta.classes):
        raise ValueError("classes must be names")
    return meta


def _short(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
