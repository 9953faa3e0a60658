"""`omnisource compare`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from omnisource.progress import printable


def compare(
    a: Annotated[Path, typer.Argument(help="Predictions table of the one model.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Predictions table of the other.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test whether two models differ, sample by sample, on the same test list.

    Example: omnisource compare TABLES/predictions-target-only-0.parquet TABLES/predictions-all-0.parquet
    """
    from omnisource.evaluate import compare as run
    from omnisource.evaluate import read_predictions

    found = run(read_predictions(a), read_predictions(b))
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    low, high = found.interval
    print(f"samples        {found.samples} in {found.groups} groups ({found.left_out} left out)")
    print(f"top-1          A {found.top1_a:.2%}  {found.a}\n               B {found.top1_b:.2%}  {found.b}")
    print(f"difference     {100 * found.difference:+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}")
    print(f"mean class     {100 * found.mean_class_difference:+.2f} points")
    print(f"right alone    A {found.only_a}, B {found.only_b}")
    print(f"p              {found.p_flip:.4f} sign flips over groups, {found.p_mcnemar:.4f} McNemar over samples")
    changes = sorted(found.per_class.items(), key=lambda item: item[1].b - item[1].a)
    shown = changes if len(changes) <= 10 else [*changes[:5], *changes[-5:]]
    print("class by class, points (test samples)" + (", the ends:" if len(shown) < len(changes) else ":"))
    for name, change in shown:
        print(f"  {100 * (change.b - change.a):+7.1f}  {printable(name)} ({change.samples})")
