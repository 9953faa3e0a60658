"""Files of weights: read foreign ones without running their code, rewrite them as ours, say what they hold."""

import math
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnisource.errors import UserError
from omnisource.networks.base import Network
from omnisource.networks.checkpoint import (
    FORMAT,
    Meta,
    is_safetensors,
    load_checkpoint,
    read_header,
    read_meta,
    read_options,
    read_safetensors,
    save_checkpoint,
)
from omnisource.networks.create import create, names, options_of, usual_input
from omnisource.networks.layouts import Layout
from omnisource.networks.weights import Conversion, rename, translate

_AVERAGED = ("state_dict_ema", "model_ema")  # timm, torchvision: kept beside the last step's, and what they test
_WRAPPERS = (*_AVERAGED, "state_dict", "model_state", "model")
"""Keys under which training tools keep the weights beside the optimiser and the rest."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""Put before every key by data-parallel training and averaging, by torch.compile, and by Lightning."""
_COUNTS = ("n_averaged", "steps")  # of an average of weights, beside the prefixed ones


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a foreign checkpoint (safetensors, or PyTorch's own format without code), unwrapped.

    Raises UserError when the file is missing, cut off, wants to run code, or holds no weights.
    """
    if is_safetensors(path):  # whatever its name says
        return read_safetensors(path)[1]
    _refuse_compressed(path)
    try:
        with path.open("rb") as file:  # by a name that ends in .safetensors PyTorch would go, too
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
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
        raise UserError(f"{path}: neither safetensors nor a whole PyTorch checkpoint; use another copy") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: holds no weights; expected a state_dict, or one under {', '.join(_WRAPPERS)}")
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{path}: {key!r} is a {type(value).__name__}, not a tensor; save the state_dict alone")
        if value.is_meta or value.layout != torch.strided:
            raise UserError(f"{path}: {key!r} is sparse or has no numbers; save a state_dict of plain tensors")
    return _unprefixed(content)


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what was put before every key, and then without the count of an average."""
    bare, found = {key: value for key, value in state.items() if key not in _COUNTS}, False
    while bare and (prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in bare)), None)):
        bare, found = {key.removeprefix(prefix): value for key, value in bare.items()}, True
    return bare if found else state


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


def convert_file(
    source: Path,
    target: Path,
    name: str,
    layout: str = "auto",
    *,
    new_classes: int | None = None,
    classes: Sequence[str] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    white: float = 255.0,
    origin: str | None = None,
    licence: str = "",
    **options: Any,
) -> Conversion:
    """Reads a foreign checkpoint and writes it as one of ours; the number of classes and of input channels is read
    off the weights. What one of ours says of itself it still says afterwards, but for what is given here.

    Args:
        source: the foreign file.
        target: ours, which appears only when all is well.
        name: of the network.
        layout: of the keys; "auto" finds out.
        new_classes: starts a new classifier for so many classes in place of the file's.
        classes: their names in the order of the logits, where they are known.
        mean, std: the normalisation that the weights were trained with, a number a channel; by default the layout's.
        white: the value of a white pixel in whose units mean and std are stated, 1 or 255.
        origin, licence: where the weights come from and on what terms; origin by default the file's name.
        options: those of `create`.

    Raises:
        UserError: as `translate`, and for a normalisation that does not fit the network or `white`, and for another
            number of names than of classes.
    """
    if (mean is None) != (std is None) or (mean is None and white != 255):
        raise UserError("the normalisation is mean, std and the value of white together; give --mean and --std both")
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: ours are safetensors; name it {target.with_suffix('.safetensors').name}")
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"{target}: is the file to convert, which is never overwritten; give another name to write to")
    state, own = read_weights(source), read_meta(source)
    options = {key: value for key, value in read_options(source).items() if key in options_of(name)} | options
    try:
        outline, found = _outline(state, name, layout, options)
        settings = {key: value for key, value in outline.options.items() if key != "dropout"}
        network = create(name, new_classes or outline.num_classes, **settings)
        conversion = translate(state, network, found.name, new_head=new_classes is not None)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    if classes and len(classes) != network.num_classes:
        raise UserError(f"{source}: --classes names {len(classes)} classes, the network has {network.num_classes}")
    if twice := [label for place, label in enumerate(classes) if label in classes[:place]]:
        raise UserError(f"{source}: --classes names '{twice[0]}' twice")
    network.load_state_dict(conversion.state)
    if mean is not None and std is not None:
        mean, std = _in_bytes(mean, std, white, network.in_channels)
    elif own is not None and len(own.mean) == network.in_channels:
        mean, std = own.mean, own.std
    elif network.in_channels == len(found.mean):
        mean, std = found.mean, found.std
    else:  # flow: bytes around 128, scaled to -1 .. 1
        mean, std = (127.5,) * network.in_channels, (127.5,) * network.in_channels
    frames, stride = usual_input(name)
    meta = replace(own or Meta(frames=frames, stride=stride), mean=tuple(mean), std=tuple(std))
    if classes or new_classes:
        meta = replace(meta, classes=tuple(classes))
    about = meta.origin or source.name if origin is None else origin
    save_checkpoint(target, network, replace(meta, origin=about, licence=licence or meta.licence))
    return conversion


def _in_bytes(
    mean: Sequence[float], std: Sequence[float], white: float, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A normalisation in units of the uint8 pixel."""
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise UserError(f"--{key} has {len(values)} numbers, but the network takes {channels} channels")
        if not all(math.isfinite(value) for value in values):
            raise UserError(f"--{key} holds a number that is not finite")
    if not min(std) > 0:
        raise UserError("--std must be positive")
    if white not in (1, 255):
        raise UserError(f"--white is the value of a white pixel, 1 or 255, not {white:g}")
    if white == 255 and max(std) < 1:
        raise UserError("--std is below 1, as for pixels from 0 to 1; then add --white 1")
    if white == 1 and (max(std) > 1 or max(mean) > 1):
        raise UserError("--mean or --std is above 1, as for pixels from 0 to 255; then leave out --white 1")
    scale = 255.0 / white
    return tuple(scale * value for value in mean), tuple(scale * value for value in std)


def fitting(state: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """The networks that foreign weights may be of, each with the layout: every key known, none missing but the
    classifier's, every shape right."""
    outlines = {key: torch.empty_like(value, device="meta") for key, value in state.items()}
    found = []
    for name in names():
        try:
            network, layout = _outline(outlines, name, "auto", {})
            translate(outlines, network, layout.name, new_head=True)
        except UserError:
            continue
        found.append((name, layout.name))
    return found


def _outline(state: Mapping[str, Tensor], name: str, layout: str, options: Mapping[str, Any]) -> tuple[Network, Layout]:
    """The network (without memory) whose classes and input channels are those of the weights, and their layout."""
    with torch.device("meta"):
        found, renamed, _ = rename(state, create(name, 1, **options), layout)
        first = renamed.get("stem.conv.weight", renamed.get("conv1a.conv.weight"))
        if first is None or first.ndim < 4:
            raise UserError(f"weights for {name}: the first convolution is missing")
        head = renamed.get("head.weight")
        classes = 1 if head is None or not head.ndim else head.shape[0]
        settings = {**{key: v for key, v in found.options.items() if key in options_of(name)}, **options}
        return create(name, classes, first.shape[1], **settings), found


def describe_file(path: Path) -> dict[str, str]:
    """What a weight file holds, as lines for people: ours from its metadata, a foreign one from its keys."""
    header = read_header(path)
    if header.get("format") == FORMAT:
        network, meta = load_checkpoint(path)
        at = f" at {meta.fps:g} frames a second" if meta.fps else ""
        names_shown = ", ".join(meta.classes[:5]) + (", ..." if len(meta.classes) > 5 else "")
        return {
            "network": network.name,
            "options": ", ".join(f"{key}={value}" for key, value in network.options.items()),
            "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
            "classes": f"{network.num_classes}" + (f" ({names_shown})" if names_shown else " (names unknown)"),
            "input": f"{meta.frames} frames, stride {meta.stride}{at}, {meta.size} pixels",
            "normalisation": f"mean {', '.join(map(str, meta.mean))}; std {', '.join(map(str, meta.std))}",
            "recipe": meta.recipe_hash or "unknown",
            "origin": meta.origin or "unknown",
            "licence": meta.licence or "unknown",
        }
    state = read_weights(path)
    fits = fitting(state)
    numbers = sum(value.numel() for key, value in state.items() if not key.endswith("num_batches_tracked"))
    return {
        "tensors": f"{len(state)}",
        "numbers": f"{numbers:,}",
        "fits": ", ".join(f"{name} (layout {layout})" for name, layout in fits) or "none of our networks",
    }
