"""`omnisource ablate`."""

import shlex
from typing import Annotated

import typer

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened
from omnisource.cli.variants import Inflated, Jobs, Only, rows_table, said, start_of, wanted_of


def ablate(
    recipe: RecipePath,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
    folds: Annotated[int | None, typer.Option(min=1, help="Only so many splits.", show_default=False)] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds of every row; default: the recipe's.", show_default=False)
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Also filters, labels, balance, mixup, cameras, and what goes beyond the paper."),
    ] = False,
    only: Only = None,
    inflated: Inflated = None,
    jobs: Jobs = 1,
) -> None:
    """Measure on your own data what each source and each setting brings, over several splits. Resumable.

    Example: omnisource ablate project/recipe.yaml --full --jobs 2
    """
    from omnisource.evidence import (
        own_track,
        own_variants,
        run_cells,
        summarise,
        variants_of,
        write_results,
        write_sheet,
    )
    from omnisource.ingest import is_labelled
    from omnisource.progress import say, show

    with opened(recipe, workspace, overrides, begin=True) as (loaded, place):
        root = place.ablation_dir
        track = own_track(loaded, place)
        numbers = track.folds[:folds]
        base = track.recipe(loaded.data, root / track.name, numbers[0])
        queried = all(is_labelled(base, name) for name in base.web_sources)
        asked = variants_of(base, not (full or only), start_of(inflated), queried)
        every = own_variants(base, asked)
        variants = wanted_of(every, only, track.name)
        wanted_seeds = loaded.seeds if seeds is None else list(range(seeds))
        say(
            f"{len(variants)} rows x {len(numbers)} splits x {len(wanted_seeds)} seeds: "
            f"{len(variants) * len(numbers) * len(wanted_seeds)} trainings"
        )
        rows = summarise(run_cells(track, loaded.data, root, variants, wanted_seeds, numbers, jobs), variants)
        command = ["omnisource", "ablate", recipe.name, *(["--folds", str(folds)] if folds else [])]
        command += ["--seeds", str(seeds)] if seeds else []
        command += ["--full"] * full + said(only, inflated) + [w for one in overrides or () for w in ("--set", one)]
        results = write_results(rows, shlex.join(command), root)
        write_sheet(results, loaded, root / "index.html")
        show(rows_table(rows))
        say(f"figures: {results}")
        say("page: ", (str(root / "index.html"), "bold"))
