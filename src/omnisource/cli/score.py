"""`omnisource score`."""

from omnisource.cli.common import Overrides, RecipePath, RunName, WorkspaceDir, opened, tell
from omnisource.cli.engine import Address, EngineKind, Gpus, Workers


def score(
    recipe: RecipePath,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
    run: RunName = None,
    engine: EngineKind = "local",
    address: Address = None,
    workers: Workers = None,
    gpus: Gpus = 0.0,
) -> None:
    """Let the teachers look at the web samples."""
    from omnisource.curate import Engine
    from omnisource.curate import score as stage

    with opened(recipe, workspace, overrides, run=run) as (loaded, place):
        tell(stage(loaded, place, Engine(engine, address, workers, gpus=gpus)))
