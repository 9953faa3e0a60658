"""`omnisource provenance`."""

from pathlib import Path
from typing import Annotated

import typer

from omnisource.progress import say


def provenance(
    what: Annotated[str, typer.Argument(help="A sample id, a path, a URL or a SHA-256.", show_default=False)],
    workspace: Annotated[Path, typer.Option("--workspace", "-w", help="Where it was collected.", show_default=False)],
) -> None:
    """Say where a sample came from: URL, page, query, author, licence, time."""
    from omnisource.collect import provenance as look_up
    from omnisource.workspace import open_workspace

    with open_workspace(workspace, begin=False) as opened:
        for row in look_up(opened, what):
            finds = row.pop("finds")
            for name, value in row.items():
                say(f"{name:>14}  {value}")
            for find in finds:
                said = ", ".join(f"{name} {value}" for name, value in find.items() if value is not None)
                say(f"{'found by':>14}  {said}")
