"""`omnisource select`."""

import typer
from rich.table import Table

from omnisource.cli.common import Overrides, RecipePath, RunName, WorkspaceDir, opened, seen_by, tell
from omnisource.progress import console


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

    with opened(recipe, workspace, overrides) as (loaded, place):
        loaded = seen_by(loaded, run)
        if not what_if:
            tell(stage(loaded, place))
            return
        shares = grid(loaded, place)
        thresholds = sorted({share.threshold for share in shares})
        table = Table(title="units kept, by rule and threshold")
        for name in ("source", "unit", "units", "rule", *(f"{threshold:g}" for threshold in thresholds)):
            table.add_column(name, justify="left" if name in ("source", "unit", "rule") else "right")
        for source, unit, of, rule in dict.fromkeys((s.source, s.unit, s.of, s.rule) for s in shares):
            kept = [s.kept for s in shares if (s.source, s.unit, s.rule) == (source, unit, rule)]
            table.add_row(source, unit, f"{of:,}", rule, *(f"{count:,}" for count in kept))
        console.print(table)
