"""`omnisource calibrate`."""

from omnisource.cli.common import Overrides, RecipePath, RunName, WorkspaceDir, opened, tell
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

    with opened(recipe, workspace, overrides, run=run) as (loaded, place):
        tell(stage(loaded, place, Engine(workers=workers)))
