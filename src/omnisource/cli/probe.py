"""`omnisource probe`."""

import typer

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell
from omnisource.cli.engine import Address, EngineKind, Workers


def probe(
    recipe: RecipePath,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
    thorough: bool = typer.Option(False, "--thorough", help="Decode every frame, like --set probe.thorough=true."),
    engine: EngineKind = "local",
    address: Address = None,
    workers: Workers = None,
) -> None:
    """Look into every file: facts, hashes, and what is broken."""
    from omnisource.curate import Engine
    from omnisource.curate import probe as stage

    changes = [*(overrides or []), *(["probe.thorough=true"] if thorough else [])]
    with opened(recipe, workspace, changes) as (loaded, place):
        tell(stage(loaded, place, Engine(engine, address, workers)))
