"""Other people's weights: rename their keys, check every shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnisource.errors import UserError
from omnisource.networks.base import Network
from omnisource.networks.layouts import LAYOUTS, Layout

HEAD = ("head.weight", "head.bias")
_OWN = ("num_batches_tracked", "usual_change")  # what files of others need not have


@dataclass(frozen=True)
class Conversion:
    """Weights under our keys (`state`), the layout they came in, and what was left out (key or part: reason).

    `mean`, `std`: the input's normalisation that is usual in that layout, in units of the uint8 pixel. `options`: those
    of `create` with which the weights give the numbers that they gave where they come from; None where that is unknown.
    """

    state: dict[str, Tensor]
    layout: str
    dropped: dict[str, str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: Mapping[str, Any] | None


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
    found, renamed, dropped = rename(state, network, layout)
    wanted = network.state_dict()
    where = f"weights in layout {found.name} for {network.name}"
    if new_head:
        for key in HEAD:
            if renamed.pop(key, None) is not None:
                dropped[key] = "the classifier is started anew"
            renamed[key] = wanted[key]
    missing = [key for key in wanted if key not in renamed and not key.endswith(_OWN)]
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
        if not value.is_meta and not torch.isfinite(value).all():
            raise UserError(f"{where}: {key} holds values that are not finite; use another copy of the file")
        result[key] = value
    return Conversion(result, found.name, dropped, found.mean, found.std, found.options or None)


def _shaped(value: Tensor, target: Tensor) -> Tensor:
    """A 2D kernel as a 3D one of depth 1; a classifier written as a 1x1x1 convolution as a matrix."""
    if value.ndim == 4 and target.ndim == 5:
        return value.unsqueeze(2)
    if value.ndim == 5 and target.ndim == 2 and value.shape[2:] == (1, 1, 1):
        return value.flatten(1)
    return value


def rename(
    state: Mapping[str, Tensor], network: Network, layout: str
) -> tuple[Layout, dict[str, Tensor], dict[str, str]]:
    """The layout, the tensors under our keys, and the keys dropped by that layout with the reasons."""
    if layout != "auto" and layout not in layouts():
        raise UserError(f"unknown layout {layout!r}: choose auto or one of {', '.join(layouts())}")
    ours = network.state_dict().keys()
    fewest, nearest, first = len(state) + 1, LAYOUTS[0], "no weights at all"
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
        if renamed and not unknown:
            return candidate, renamed, dropped
        if len(unknown) < fewest:
            fewest, nearest, first = len(unknown), candidate, unknown[0] if unknown else first
    raise UserError(
        f"weights for {network.name}: {fewest} of {len(state)} keys are unknown in the nearest layout, "
        f"{nearest.name} (first: {first!r}); known layouts: {', '.join(layouts())}"
    )
