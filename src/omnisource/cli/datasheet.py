"""`omnisource datasheet`."""

from pathlib import Path
from typing import Annotated

import typer

from omnisource.errors import UserError
from omnisource.progress import say


def datasheet(
    workspace: Annotated[Path, typer.Option("--workspace", "-w", help="Where it was collected.", show_default=False)],
    output: Annotated[Path | None, typer.Argument(help="File to write; default: the workspace's datasheet.md.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; default: the workspace's.")] = None,
) -> None:
    """Write a dataset card for what was collected."""
    from omnisource.collect import datasheet as describe
    from omnisource.tables import write_atomic
    from omnisource.workspace import open_workspace

    if output is not None and output.suffix.lower() in (".yaml", ".yml"):  # most other verbs begin with the recipe
        raise UserError(
            f"{output}: would be overwritten; a data sheet needs no recipe, name the file to write, or none"
        )
    with open_workspace(workspace, begin=False) as opened:
        path = output or opened.root / "datasheet.md"
        write_atomic(path, describe(opened, name or opened.root.name).encode())
    say(f"wrote {path}")
