"""`omnisource demo`: the whole method on a small drawn world."""

from pathlib import Path

import typer

from omnisource.demo import SIZES, make_world
from omnisource.errors import UserError


def demo(
    make_data: Path | None = typer.Option(
        None, "--make-data", metavar="DIR", help="Only film the miniature world into DIR, an empty or new folder."
    ),
    size: str = typer.Option("demo", help=f"How large a world: {' or '.join(SIZES)}."),
    seed: int = typer.Option(0, min=0, help="Another seed, another world."),
    workers: int = typer.Option(2, min=1, help="Processes that film."),
) -> None:
    """Film a miniature world: labelled clips of eight actions, and a web of images, clips and untrimmed videos."""
    if make_data is None:
        raise UserError("omnisource demo: name a folder with --make-data DIR")
    world = make_world(make_data, size=size, seed=seed, workers=workers)
    print(f"{world.root}: {world.target_csv.name}, {world.images_csv.name}, {world.clips_csv.name}, "
          f"{world.untrimmed_csv.name}, {world.classes_txt.name}")  # fmt: skip
