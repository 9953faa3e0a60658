"""Networks by name."""

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from omnisource.errors import UserError
from omnisource.networks.base import Network
from omnisource.networks.csn import CSN
from omnisource.networks.efficientnet import EfficientNet
from omnisource.networks.inception3d import InceptionI3D
from omnisource.networks.resnet import i3d_resnet, slowonly, tsn_resnet
from omnisource.recipe import Training

_BUILDERS: dict[str, Callable[..., Network]] = {
    **{f"tsn_r{depth}": partial(tsn_resnet, depth) for depth in (18, 34, 50, 101, 152)},
    **{f"tsn_efficientnet_{v}": partial(EfficientNet, v) for v in ("b0", "b1", "b2", "b3", "b4", "lite0")},
    **{f"slowonly_r{depth}": partial(slowonly, depth) for depth in (18, 34, 50, 101, 152)},
    **{f"ircsn_r{depth}": partial(CSN, depth, False) for depth in (50, 101, 152)},
    **{f"ipcsn_r{depth}": partial(CSN, depth, True) for depth in (50, 101, 152)},
    "i3d_r50": partial(i3d_resnet, 50),
    "i3d_inception": InceptionI3D,
}


def names() -> list[str]:
    """The names that `create` knows, in the order of the documentation."""
    return list(_BUILDERS)


def is_spatial(name: str) -> bool:
    """Whether the network of this name is 2D: sees single frames and averages over them (TSN)."""
    return name.startswith("tsn_")


def takes_frames(training: Training) -> bool:
    """Whether a training takes 1-FPS frames of untrimmed videos (2D networks; paper, section 3.3.2), not windows."""
    return is_spatial(training.network.name) and training.snippets.kind != "window"


def usual_input(name: str) -> tuple[int, int]:
    """Frames (or snippets) of a clip and their stride in source frames, as in section 4 of the paper."""
    if name == "i3d_inception":
        return 64, 1
    return {"tsn": (3, 1), "slowonly": (8, 8)}.get(name.split("_")[0], (32, 2))


def options_of(name: str) -> set[str]:
    """The options that `create` takes for the network of this name."""
    return set(inspect.signature(_builder(name)).parameters) - {"num_classes", "in_channels", "dropout"}


def _builder(name: str) -> Callable[..., Network]:
    builder = _BUILDERS.get(name)
    if builder is None:
        near = difflib.get_close_matches(name, _BUILDERS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(_BUILDERS)}"
        raise UserError(f"unknown network {name!r}: {hint}")
    return builder


def create(name: str, num_classes: int, in_channels: int = 3, dropout: float | None = None, **options: Any) -> Network:
    """Builds a network with fresh weights, in training mode.

    `in_channels` is 3 for RGB, 2 for optical flow. `dropout` (before the classifier) is the family's own by
    default: 0.4 for TSN, 0.5 for the rest. Options: `base_width` of the residual networks (64 in the
    literature; 8 or 16 gives a network for tests and demonstrations), `consensus` of the TSNs, `padding` of the
    EfficientNets; `options_of` names them all. Raises UserError for an unknown name or option, or a value that no
    network can be built with.
    """
    builder = _builder(name)
    known = options_of(name)
    unknown = sorted(set(options) - known)
    if unknown:
        raise UserError(f"{name} has no option {unknown[0]!r}; it has {', '.join(sorted(known)) or 'none'}")
    given = dict(options) if dropout is None else {**options, "dropout": dropout}
    try:
        network = builder(num_classes=num_classes, in_channels=in_channels, **given)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # a word for a number, a size beyond memory
        said = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise UserError(f"{name} cannot be built with {said} ({str(error).splitlines()[0][:160]})") from error
    network.name = name
    network.options = {"in_channels": in_channels, "dropout": network.dropout.p, **options}
    return network
