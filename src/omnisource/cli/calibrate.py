"""`omnisource calibrate`."""

from omnisource.cli.common import Overrides, RecipePath, RunName, WorkspaceDir, opened, seen_by, tell
from omnisource.cli.engine import Workers


def calibrate(
    recipe: RecipePath,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
    run: RunName = None,
    workers: Workers = None,
) -> None:
    """Let the teachers look at held-out target samples, for `select.calibrate`."""
    from omnisource.curate import Engine
    from omnisource.curate import calibrate as stage

    with opened(recipe, workspace, overrides) as (loaded, place):
        loaded = seen_by(loaded, run)
        tell(stage(loaded, place, Engine(workers=workers)))
