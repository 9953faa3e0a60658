"""`omnisource dedupe`."""

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell
from omnisource.cli.engine import Address, EngineKind, Gpus, Workers


def dedupe(
    recipe: RecipePath,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
    engine: EngineKind = "local",
    address: Address = None,
    workers: Workers = None,
    gpus: Gpus = 0.0,
) -> None:
    """Drop copies within the web, and what is too close to the target's val and test samples."""
    from omnisource.curate import Engine
    from omnisource.curate import dedupe as stage

    with opened(recipe, workspace, overrides) as (loaded, place):
        tell(stage(loaded, place, Engine(engine, address, workers, gpus=gpus)))
