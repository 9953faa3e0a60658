"""`omnisource bench`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from omnisource.cli.variants import Inflated, Jobs, Only, rows_table, said, start_of, wanted_of

app = typer.Typer(no_args_is_help=True, help="Measure whether the method works.")


Results = Annotated[Path, typer.Option(help="Folder of the figures as JSON, effect-TRACK.json.")]
Page = Annotated[Path, typer.Option(help="Page whose figures are replaced.")]
_RESULTS, _PAGE = Path("benchmarks/results"), Path("docs/evidence.md")


@app.command()
def effect(
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds the real tracks' data (tennis/, home/).", show_default=False)
    ] = None,
    workspace: Annotated[Path, typer.Option(help="Where cells and their tables are kept.")] = Path("workspaces/effect"),
    track: Annotated[list[str] | None, typer.Option(help="Only this track; may be given several times.")] = None,
    folds: Annotated[int | None, typer.Option(min=1, help="Only so many folds.", show_default=False)] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every cell.")] = 3,
    few: Annotated[bool, typer.Option("--few", help="Without the ablations.")] = False,
    only: Only = None,
    inflated: Inflated = None,
    jobs: Jobs = 1,
    results: Results = _RESULTS,
    page: Page = _PAGE,
) -> None:
    """Train every variant on every track, fold and seed; write what it amounts to. Resumable."""
    from omnisource.evidence import TRACKS, run_cells, summarise, track_of, variants_of, write_page, write_results
    from omnisource.progress import say, show

    root = workspace.resolve()
    wanted = [track_of(name) for name in track] if track else list(TRACKS)
    for left in [] if track else [one for one in TRACKS if not one.ready(data)]:
        say(f"{left.name}: left out, as DATA/{left.weights} is missing")
        wanted.remove(left)
    for chosen in wanted:
        numbers = chosen.folds[:folds]
        first = chosen.recipe(chosen.media(data, root, numbers[0]), root / chosen.name, numbers[0])
        variants = wanted_of(variants_of(first, few, start_of(inflated)), only, chosen.name)
        cells = run_cells(chosen, data, root, variants, range(seeds), numbers, jobs)
        rows = summarise(cells, variants)
        show(rows_table(rows))
        command = ["omnisource", "bench", "effect", *(["--data", "DATA"] if chosen.folder else [])]
        command += ["--track", chosen.name, *(["--folds", str(folds)] if folds else []), "--seeds", str(seeds)]
        command += ["--few"] * few + said(only, inflated)
        write_results(rows, shlex.join(command), results)
        write_page(results, page)
    say(f"figures: {results}, {page}")


@app.command(name="page")
def page_again(results: Results = _RESULTS, page: Page = _PAGE) -> None:
    """Write the page of evidence anew from the figures that are there; trains nothing."""
    from omnisource.evidence import write_page

    write_page(results, page)
