"""`omnisource fuse`."""

from pathlib import Path
from typing import Annotated

import typer

from omnisource.errors import UserError


def fuse(
    tables: Annotated[list[Path], typer.Argument(help="Predictions tables of one test list.", show_default=False)],
    weights: Annotated[str, typer.Option(help="One weight per table, e.g. 1:1.5; default: equal.")] = "",
    sweep_on: Annotated[
        list[Path] | None,
        typer.Option(
            help="Find the weights on two tables of held-out data, in the order of TABLES; give it twice.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the fused predictions here.", show_default=False)] = None,
) -> None:
    """Fuse predictions by the weighted mean of class probabilities (two-stream).

    Example: omnisource fuse predictions-rgb-0.parquet predictions-flow-0.parquet --weights 1:1.5
    """
    from omnisource.evaluate import (
        as_table,
        best_share,
        measure,
        parse_weights,
        read_predictions,
        sweep_weights,
        write_predictions,
    )
    from omnisource.evaluate import (
        fuse as run,
    )

    if len(tables) < 2:
        raise UserError("fuse needs two predictions tables or more")
    if out is not None and out.exists() and any(out.samefile(table) for table in tables):
        raise UserError(f"{out}: is one of the tables that are fused; give --out another name")
    read = [read_predictions(path) for path in tables]
    chosen = parse_weights(weights, len(read)) if weights else [1.0] * len(read)
    if sweep_on:
        if weights or len(read) != 2 or len(sweep_on) != 2:
            raise UserError("--sweep-on finds the weights of two tables from two held-out ones; give no --weights")
        held_out = [read_predictions(path) for path in sweep_on]
        if common := set(read[0].sample_ids) & set(held_out[0].sample_ids):
            raise UserError(
                f"{held_out[0].name}: is not held out: {len(common)} of its {len(held_out[0].sample_ids)} samples are "
                "fused here; test both streams with --set test.split=val first"
            )
        sweep = sweep_weights(held_out[0], held_out[1])
        for share, top1 in sweep:
            print(f"held out  {1 - share:.2f}:{share:.2f}  top-1 {top1:.2%}")
        share = best_share(sweep)
        chosen = [1 - share, share]
    fused = run(read, chosen)
    for p in (*read, fused):
        found = measure(p.probs, p.labels, p.classes, groups=p.groups)
        low, high = found.top1_interval
        top5 = f"top-5 {found.top5:.2%}, " if len(p.classes) > 5 else ""  # of fewer classes it says nothing
        print(
            f"{p.name}: top-1 {found.top1:.2%} ({100 * low:.2f} to {100 * high:.2f}), "
            f"{top5}mean class {found.mean_class:.2%}, {found.samples} of {found.samples + len(p.failed)} samples, "
            f"list {p.list_hash}"
        )
    print("weights " + ":".join(f"{weight:g}" for weight in chosen))
    if out is not None:
        write_predictions(out, as_table(fused), fused.classes)
