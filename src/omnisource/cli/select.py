"""`omnisource select`."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from omnisource.cli.common import Overrides, RecipePath, RunName, WorkspaceDir, opened, tell
from omnisource.progress import show

if TYPE_CHECKING:
    from omnisource.curate.select import Share


def select(
    recipe: RecipePath,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
    run: RunName = None,
    what_if: bool = typer.Option(False, "--what-if", help="Show what a grid of thresholds would keep; write nothing."),
) -> None:
    """Decide from the scores which web samples train, and under which label."""
    from omnisource.curate import select as stage
    from omnisource.curate import what_if as grid

    with opened(recipe, workspace, overrides, run=run) as (loaded, place):
        if not what_if:
            tell(stage(loaded, place))
            return
        for table in funnels(grid(loaded, place)):
            show(table)


def funnels(shares: Sequence["Share"]) -> Iterator[Table]:
    """A table for every source and kind of unit, narrow enough for the 80 columns that a pipe gets."""
    for source, unit, of in dict.fromkeys((share.source, share.unit, share.of) for share in shares):
        mine = [share for share in shares if (share.source, share.unit) == (source, unit)]
        title = f"{source}: kept of {of:,} units ({unit}), by rule and threshold"
        table = Table(title=title, box=None, padding=(0, 1, 0, 0))
        table.add_column("rule", no_wrap=True)
        for threshold in sorted({share.threshold for share in mine}):
            table.add_column(f"{threshold:g}", justify="right", no_wrap=True)
        for rule in dict.fromkeys(share.rule for share in mine):
            of_rule = sorted((share for share in mine if share.rule == rule), key=lambda share: share.threshold)
            table.add_row(rule, *(f"{share.kept:,}" for share in of_rule))
        yield table
