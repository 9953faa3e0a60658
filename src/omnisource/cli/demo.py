"""`omnisource demo`: the whole method on a small drawn world."""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from omnisource.cli.common import Overrides
from omnisource.progress import say


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the world and everything made of it.")] = Path("demo"),
    make_data: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default=False, help="Only film the world, into DIR.")
    ] = None,
    size: Annotated[str, typer.Option(help="How large a world: demo or large.")] = "demo",
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another world.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that film.")] = 2,
    overrides: Overrides = None,
) -> None:
    """Film a miniature world and run the whole job on it, from labelled clips and a faulty web to the report."""
    from omnisource.demo import make_world

    world = make_world(make_data or out / "world", size=size, seed=seed, workers=workers)
    say(f"filmed: {world.root}")
    if make_data is None:
        from omnisource.cli.run import run_and_show
        from omnisource.recipe import load_recipe
        from omnisource.workspace import open_workspace

        with as_file(files("omnisource.demo") / "recipe.yaml") as path:
            recipe = load_recipe(path, [f"data={world.root}", *(overrides or [])])
        with open_workspace(out / "workspace") as workspace:
            run_and_show(recipe, workspace, None)
