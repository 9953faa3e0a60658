"""`omnisource weights`: other people's weights."""

from pathlib import Path
from typing import Annotated, Any

import typer

from omnisource.errors import UserError
from omnisource.progress import printable

# Not options of a network: they have flags of their own, or follow from the weights.
_OURS = ("num_classes", "in_channels", "dropout", "new_classes", "classes")
_RESERVED = (*_OURS, "mean", "std", "white", "origin", "licence")

app = typer.Typer(no_args_is_help=True, help="Convert other people's weights, and look into weight files.")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint: .pth, .pt, .pyth or .safetensors.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="Where to write ours: .safetensors.", show_default=False)],
    network: Annotated[str, typer.Option(help="The network's name, such as slowonly_r50.", show_default=False)],
    layout: Annotated[str, typer.Option(help="Where the keys come from; auto finds out.")] = "auto",
    new_classes: Annotated[
        int | None, typer.Option(min=1, help="Start a new classifier for so many classes.", show_default=False)
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="A file of the classes' names, one a line.", show_default=False)
    ] = None,
    mean: Annotated[
        str, typer.Option(help="The input's mean per channel, as in 123.7,116.3,103.5; default: the layout's.")
    ] = "",
    std: Annotated[str, typer.Option(help="The input's standard deviation per channel; with --mean.")] = "",
    white: Annotated[float, typer.Option(help="What a white pixel is in --mean and --std: 255 or 1.")] = 255,
    origin: Annotated[
        str | None, typer.Option(help="Where the weights come from; default: the file's name.", show_default=False)
    ] = None,
    licence: Annotated[str, typer.Option(help="On what terms they may be used.")] = "",
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the network, as in padding=same.", show_default=False)
    ] = None,
) -> None:
    """Rewrite a foreign checkpoint as one of ours, complete and checked.

    Example: omnisource weights convert resnet50.pth r50.safetensors --network tsn_r50
    """
    from omnisource.networks import convert_file
    from omnisource.recipe import read_names

    found = convert_file(
        source,
        target,
        network,
        layout,
        new_classes=new_classes,
        classes=read_names(classes, "the file of --classes") if classes else (),
        mean=_numbers("mean", mean),
        std=_numbers("std", std),
        white=white,
        origin=origin,
        licence=licence,
        **_options(option or []),
    )
    print(f"{target}: {network} from layout {found.layout}, {len(found.state)} tensors")
    for key, reason in found.dropped.items():
        print(printable(f"dropped {key}: {reason}"))


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A checkpoint, ours or foreign.", show_default=False)],
) -> None:
    """Say what a weight file holds."""
    from omnisource.networks import describe_file

    for name, value in describe_file(file).items():
        print(printable(f"{name:14} {value}"))


def _numbers(key: str, text: str) -> tuple[float, ...] | None:
    """ "0.5,0.25" -> (0.5, 0.25); None for an empty text."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else None
    except ValueError:
        raise UserError(f"--{key} {text}: expected a number per channel, such as 123.675,116.28,103.53") from None


def _options(pairs: list[str]) -> dict[str, Any]:
    """["padding=same", "base_width=16"] -> {"padding": "same", "base_width": 16}."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key or key in _RESERVED:
            raise UserError(f"--option {pair}: expected an option of the network as KEY=VALUE, such as padding=same")
        for kind in (int, float, str):
            try:
                found[key] = kind(text)
                break
            except ValueError:
                continue
    return found
