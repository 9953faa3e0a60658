"""`omnisource weights`: other people's weights."""

from pathlib import Path
from typing import Annotated, Any

import typer

from omnisource.errors import UserError

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
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the network, as in padding=same.", show_default=False)
    ] = None,
) -> None:
    """Rewrite a foreign checkpoint as one of ours, complete and checked."""
    from omnisource.networks import convert_file

    found = convert_file(source, target, network, layout, new_classes=new_classes, **_options(option or []))
    print(f"{target}: {network} from layout {found.layout}, {len(found.state)} tensors")
    for key, reason in found.dropped.items():
        print(f"dropped {key}: {reason}")


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A checkpoint, ours or foreign.", show_default=False)],
) -> None:
    """Say what a weight file holds."""
    from omnisource.networks import describe_file

    for name, value in describe_file(file).items():
        print(f"{name:14} {value}")


def _options(pairs: list[str]) -> dict[str, Any]:
    """["padding=same", "base_width=16"] -> {"padding": "same", "base_width": 16}."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key or key in ("num_classes", "in_channels", "dropout", "meta", "new_classes"):
            raise UserError(f"--option {pair}: expected an option of the network as KEY=VALUE, such as padding=same")
        for kind in (int, float, str):
            try:
                found[key] = kind(text)
                break
            except ValueError:
                continue
    return found
