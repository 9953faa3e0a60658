"""`omnisource bench`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from omnisource.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Measure whether the method works.")


@app.command()
def effect(
    data: Annotated[Path, typer.Option(help="Folder that holds the tracks' data (tennis/, home/).")],
    workspace: Annotated[Path, typer.Option(help="Where cells and their tables are kept.")] = Path("workspaces/effect"),
    track: Annotated[list[str] | None, typer.Option(help="Only this track; may be given several times.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every cell.")] = 3,
    few: Annotated[bool, typer.Option("--few", help="Without the ablations.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only the variant of this name, and what it refers to; several times.")
    ] = None,
    results: Annotated[Path, typer.Option(help="JSON with every figure.")] = Path("benchmarks/results/effect.json"),
    page: Annotated[Path, typer.Option(help="Page whose figures are replaced.")] = Path("docs/evidence.md"),
) -> None:
    """Train every variant on every track, fold and seed; write what it amounts to. Resumable."""
    from omnisource.evidence import TRACKS, run_cells, summarise, track_of, variants_of, write_page
    from omnisource.progress import console

    rows = []
    for name in track or [one.name for one in TRACKS]:
        chosen = track_of(name)
        first = chosen.recipe((data / chosen.folder).resolve(), workspace / name, chosen.folds[0])
        variants = variants_of(first, few)
        if only:
            names = [variant.name for variant in variants]
            if unknown := [one for one in only if one not in names]:
                raise UserError(f"--only {unknown[0]}: no such variant of {name}; variants are: {'; '.join(names)}")
            wanted = set(only)
            for _ in range(2):  # a gain may be over a variant whose own is over target-only
                wanted |= {variant.against for variant in variants if variant.name in wanted}
            variants = [variant for variant in variants if variant.name in wanted]
        cells = run_cells(chosen, data, workspace.resolve(), variants, range(seeds), chosen.folds)
        found = summarise(cells, variants)
        rows += found
        for row in found:
            gain = "" if row.gain is None else f"{row.gain:+5.1f}  {row.gain_interval}  over {row.against}"
            console.print(f"{name}  {row.variant:32} {row.top1:5.1f}  {gain}", markup=False, soft_wrap=True)
    write_page(rows, "omnisource " + " ".join(sys.argv[1:]), results, page)
    console.print(f"figures: {results}, {page}", markup=False, soft_wrap=True)
