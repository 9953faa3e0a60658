"""`omnisource flow`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell


def flow(
    recipe: RecipePath,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
    method: Annotated[str | None, typer.Option(help="Short for --set flow.method=...", show_default=False)] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of RAFT: a file.", show_default=False)] = None,
) -> None:
    """Compute optical flow of the target's videos, for networks with `input.modality: flow`."""
    from omnisource.flow import compute_flow

    settings = list(overrides or [])
    if method is not None:
        settings.append(f"flow.method={method}")
    if weights is not None:
        settings.append(f"flow.weights={json.dumps(str(weights.expanduser().resolve()))}")
    with opened(recipe, workspace, settings) as (loaded, place):
        tell(compute_flow(loaded, place))
