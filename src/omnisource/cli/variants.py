"""What `ablate` and `bench effect` share: which variants are trained, and the table of what they amount to."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from omnisource.errors import UserError

if TYPE_CHECKING:
    from omnisource.evidence import Row, Variant

Only = Annotated[
    list[str] | None, typer.Option(help="Only the variant of this name, and what it refers to; several times.")
]
Inflated = Annotated[
    str | None,
    typer.Option(
        metavar="NETWORK=FILE",
        help="3D students also start from the ImageNet weights of a 2D ResNet, as in slowonly_r50=resnet50.pth.",
        show_default=False,
    ),
]
Jobs = Annotated[int, typer.Option(min=1, help="Trainings side by side; no figure depends on it.")]


def rows_table(rows: Sequence["Row"]) -> Table:
    """Every variant's accuracy, and its gain over the variant that it is compared with."""
    from omnisource.evidence.sheet import span

    first = rows[0]
    table = Table(
        title=f"{first.track}: top-1, {first.folds} folds x {first.seeds} seeds, {first.tested} test samples in all; "
        "intervals of 95 %, t over folds x seeds",
        title_justify="left",
    )
    for name in ("trained on", "top-1", "gain", "interval", "over"):
        table.add_column(name, justify="left" if name in ("trained on", "over") else "right")
    for row in rows:
        gain = "" if row.gain is None else f"{row.gain:+.1f}"
        table.add_row(row.variant, f"{row.top1:.1f}", gain, span(row.gain_interval), row.against)
    return table


def said(only: list[str] | None, inflated: str | None) -> list[str]:
    """The options as words of a command that names no place of this machine."""
    words = ["--inflated", f"{inflated.partition('=')[0]}=FILE"] if inflated else []
    return words + [word for name in only or () for word in ("--only", name)]


def start_of(inflated: str | None) -> tuple[str, Path] | None:
    """The network and the file of `--inflated NETWORK=FILE`."""
    from omnisource.networks import is_spatial, names

    if inflated is None:
        return None
    network, _, file = inflated.partition("=")
    path = Path(file).expanduser()
    if network not in names() or is_spatial(network):
        raise UserError(
            f"--inflated {inflated}: '{network}' is no 3D network; write it as in slowonly_r50=resnet50.pth"
        )
    if not path.is_file():
        raise UserError(f"--inflated {inflated}: no such file")
    return network, path.resolve()


def wanted_of(variants: list["Variant"], only: list[str] | None, track: str) -> list["Variant"]:
    """The variants of the names in `only`, and those over which their gains are counted."""
    if not only:
        return variants
    names = [variant.name for variant in variants]
    if unknown := [one for one in only if one not in names]:
        raise UserError(f"--only {unknown[0]}: no such variant of {track}; variants are: {'; '.join(names)}")
    wanted = set(only)
    for _ in range(2):  # a gain may be over a variant whose own is over target-only
        wanted |= {variant.against for variant in variants if variant.name in wanted}
    return [variant for variant in variants if variant.name in wanted]
