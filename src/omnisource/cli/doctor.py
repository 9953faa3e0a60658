"""`omnisource doctor`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from omnisource.progress import show

_MARKS = {"good": Text("✓", "green"), "note": Text("·", "yellow"), "bad": Text("✗", "red")}


def doctor(
    folder: Annotated[Path, typer.Argument(help="Where you mean to work (its disk is looked at).")] = Path(),
) -> None:
    """Say what this machine has, and what to do about what is missing."""
    from omnisource.doctor import examine

    findings = examine(folder)
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        table.add_row(_MARKS[finding.state], finding.what, finding.found, finding.cure)
    show(table)
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)
