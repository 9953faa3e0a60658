"""Other people's weights: read their files, rename their keys, check every shape."""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnisource.errors import UserError
from omnisource.networks.base import Network
from omnisource.networks.checkpoint import read_safetensors
from omnisource.networks.layouts import LAYOUTS, Layout

HEAD = ("head.weight", "head.bias")
_WRAPPERS = ("state_dict", "model_state", "model")
"""Keys under which training tools keep the weights beside the optimiser and the rest."""


@dataclass(frozen=True)
class Conversion:
    """Weights under our keys (`state`), the layout they came in, and what was left out (key or part:
    reason)."""

    state: dict[str, Tensor]
    layout: str
    dropped: dict[str, str]


def layouts() -> list[str]:
    """The names of the layouts that `convert` knows; "auto" stands for whichever fits."""
    return [layout.name for layout in LAYOUTS]


def convert(
    state: Mapping[str, Tensor], network: Network, layout: str = "auto", *, new_head: bool = False
) -> dict[str, Tensor]:
    """Foreign weights under our keys, as `network.load_state_dict` takes them; see `translate`."""
    return translate(state, network, layout, new_head=new_head).state


def translate(
    state: Mapping[str, Tensor], network: Network, layout: str = "auto", *, new_head: bool = False
) -> Conversion:
    """Foreign weights under our keys, complete and of the right shapes; the network itself is left as it is.

    `new_head` keeps the network's own classifier in place of the foreign one (other classes, or none in the
    file). Raises UserError for an unknown or wrong layout, for keys that are unknown, missing or of another
    shape, for another number of classes without `new_head`, and for values that are not finite.
    """
    found, renamed, dropped = _rename(state, network, layout)
    wanted = network.state_dict()
    where = f"weights in layout {found.name} for {network.name}"
    if new_head:
        for key in HEAD:
            if renamed.pop(key, None) is not None:
                dropped[key] = "the classifier is started anew"
            renamed[key] = wanted[key]
    missing = [key for key in wanted if key not in renamed and not key.endswith("num_batches_tracked")]
    if missing == list(HEAD):
        raise UserError(f"{where}: the file has no classifier; ask for a new head to start one anew")
    if missing:
        raise UserError(f"{where}: {missing[0]} and {len(missing) - 1} more are missing from the file")
    result: dict[str, Tensor] = {}
    for key, target in wanted.items():
        # Files from before PyTorch 0.4.1, or of other frameworks, do not count batches. Nothing reads the
        # count.
        value = _shaped(renamed.get(key, target), target)
        if value.shape != target.shape:
            cure = "; ask for a new head if other classes are meant" if key in HEAD else ""
            raise UserError(f"{where}: {key} is {tuple(value.shape)}, not {tuple(target.shape)}{cure}")
        if value.is_floating_point() != target.is_floating_point() or value.is_complex():
            raise UserError(f"{where}: {key} holds {value.dtype}, not {target.dtype}")
        value = value.to(target.dtype)
        if not torch.isfinite(value).all():
            raise UserError(f"{where}: {key} holds values that are not finite; use another copy of the file")
        result[key] = value
    return Conversion(result, found.name, dropped)


def _shaped(value: Tensor, target: Tensor) -> Tensor:
    """A 2D kernel as a 3D one of depth 1; a classifier written as a 1x1x1 convolution as a matrix."""
    if value.ndim == 4 and target.ndim == 5:
        return value.unsqueeze(2)
    if value.ndim == 5 and target.ndim == 2 and value.shape[2:] == (1, 1, 1):
        return value.flatten(1)
    return value


def _rename(
    state: Mapping[str, Tensor], network: Network, layout: str
) -> tuple[Layout, dict[str, Tensor], dict[str, str]]:
    """The layout, the tensors under our keys, and the keys dropped by that layout with the reasons."""
    if layout != "auto" and layout not in layouts():
        raise UserError(f"unknown layout {layout!r}: choose auto or one of {', '.join(layouts())}")
    ours = network.state_dict().keys()
    best: tuple[int, Layout, str] | None = None
    for candidate in LAYOUTS:
        if layout not in ("auto", candidate.name):
            continue
        renamed: dict[str, Tensor] = {}
        dropped: dict[str, str] = {}
        unknown: list[str] = []
        for foreign, value in state.items():
            key = candidate.rename(foreign, network)
            reason = candidate.why_dropped(foreign)
            if key in ours and key not in renamed:
                renamed[key] = value
            elif reason is not None:
                dropped[foreign] = reason
            else:
                unknown.append(foreign)
        if not unknown and renamed:
            return candidate, renamed, dropped
        if best is None or len(unknown) < best[0]:
            best = (len(unknown), candidate, unknown[0] if unknown else "no weights at all")
    assert best is not None
    raise UserError(
        f"weights for {network.name}: {best[0]} of {len(state)} keys are unknown in the nearest layout, "
        f"{best[1].name} (first: {best[2]!r}); known layouts: {', '.join(layouts())}"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a foreign checkpoint (safetensors, or PyTorch's own format without code), unwrapped.

    Raises UserError when the file is missing, cut off, wants to run code, or holds no weights.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)[1]
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    _refuse_compressed(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused, since it is damaged or holds more than weights (loading it could run code); "
            "save its state_dict alone and try again"
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        raise UserError(f"{path}: not a whole PyTorch checkpoint; use another copy") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: holds no weights; expected a state_dict, or one under {', '.join(_WRAPPERS)}")
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{path}: {key!r} is a {type(value).__name__}, not a tensor; save the state_dict alone")
    state: dict[str, Tensor] = content
    if all(key.startswith("module.") for key in state):  # written by a data-parallel training
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _refuse_compressed(path: Path) -> None:
    """PyTorch stores its tensors uncompressed, so a file that would unpack to more than itself is not its
    work."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: not a whole PyTorch checkpoint; use another copy") from error
    if unpacked > path.stat().st_size:
        raise UserError(f"{path}: refused, since it would unpack to {unpacked} bytes; save the state_dict anew")
