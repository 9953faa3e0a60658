"""Two streams on real clips: RGB, optical flow and their fusion, over the folds of a labelled dataset.

    python benchmarks/two_stream.py --data DIR --work WORK    # DIR holds target.csv: path, label, group, fold
    python benchmarks/two_stream.py --data HOME --work WORK --group video --folds 0 1 2 3 --name home

Classifiers on a fixed trunk (EfficientNet-lite0 from ImageNet, snippets), DIS flow, fusion 1:1. Prints a table, writes
benchmarks/results/two_stream-NAME.json. It resumes: what WORK holds already is not done again.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from omnisource import evaluate
from omnisource.curate import probe
from omnisource.evaluate import Predictions, fuse, measure, read_predictions
from omnisource.evaluate.metrics import t_interval
from omnisource.evidence.tracks import training as fixed_trunk
from omnisource.flow import compute_flow
from omnisource.ingest import ingest
from omnisource.recipe import Recipe
from omnisource.train import train_student
from omnisource.workspace import open_workspace

RUN = "target-only"
STREAMS = ("rgb", "flow")


def recipe_of(data: Path, flow: Path, fold: int, stream: str, epochs: float, seeds: list[int], group: str) -> Recipe:
    """Target-only training of one stream, tested on one fold. Flow videos are kept in `flow` for all folds."""
    training = fixed_trunk()
    training |= {"epochs": epochs, "workers": 0}
    training["input"] = {"frames": 8, "short_side": 128, "size": 112, "min_area": 0.3, "modality": stream}
    target = {"role": "target", "path": "target.csv", "columns": {"group": group}, "test": {"fold": fold}}
    return Recipe.model_validate(
        {
            "name": "two-stream",
            "data": data.resolve(),
            "sources": {"target": target},
            "teachers": {"image": training, "video": training},
            "student": training,
            # The usual bound of 20 pixels is for frames twice as large.
            "flow": {"method": "dis", "short_side": 128, "bound": 10, "folder": str(flow.resolve())},
            "seeds": seeds,
            "test": {"clips": 10, "crops": 3, "average": "score"},
        }
    )


def tested(recipe: Recipe, work: Path, seed: int) -> Predictions:
    """Trains and tests one stream."""
    with open_workspace(work) as workspace:
        shared, mine = work.parent / "features", workspace.root / "runs" / ".features"  # folds see the same files
        shared.mkdir(exist_ok=True)
        if not mine.exists():
            mine.symlink_to(shared.resolve(), target_is_directory=True)
        ingest(recipe, workspace)
        probe(recipe, workspace)
        if recipe.student.input.modality == "flow":
            compute_flow(recipe, workspace)
        train_student(recipe, workspace, RUN, seed)
        evaluate.test_run(recipe, workspace, RUN, seed)
        return read_predictions(workspace.table(f"predictions-{RUN}-{seed}"))


def _figure(rows: list[dict[str, Any]], of: Callable[[dict[str, Any]], float]) -> dict[str, Any]:
    """The mean, with t intervals over all trainings and, since seeds of a fold are not independent, over folds."""
    values = [of(row) for row in rows]
    folds = [[of(row) for row in rows if row["fold"] == fold] for fold in sorted({row["fold"] for row in rows})]
    return {
        "mean": sum(values) / len(values),
        "trainings": len(values),
        "t_interval": t_interval(values),
        "t_interval_over_folds": t_interval([sum(fold) / len(fold) for fold in folds]),
    }


def _without_paths(words: list[str]) -> list[str]:
    """The command's words with DATA and WORK in the place of this machine's folders."""
    shown = list(words)
    for option, name in (("--data", "DATA"), ("--work", "WORK")):
        shown[shown.index(option) + 1] = name
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--group", default="group", help="column of what must not be split")
    parser.add_argument("--name", default="tennis", help="of the results")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in given.seeds:
        for fold in given.folds:
            streams = [
                tested(
                    recipe_of(given.data, given.work / "flow", fold, stream, given.epochs, given.seeds, given.group),
                    given.work / f"{stream}-{fold}",
                    seed,
                )
                for stream in STREAMS
            ]
            row: dict[str, Any] = {"fold": fold, "seed": seed, "list_hash": streams[0].list_hash}
            for name, said in zip((*STREAMS, "fused"), (*streams, fuse(streams, [1, 1])), strict=True):
                found = measure(said.probs, said.labels, said.classes, groups=said.groups)
                row[name] = {"top1": found.top1, "mean_class": found.mean_class, "samples": found.samples}
            rows.append(row)
            print(
                f"seed {seed} fold {fold}: " + ", ".join(f"{n} {row[n]['top1']:.1%}" for n in (*STREAMS, "fused")),
                flush=True,
            )
    summary: dict[str, Any] = {}
    for name in (*STREAMS, "fused"):
        summary[name] = {"top1": _figure(rows, lambda row, name=name: row[name]["top1"])}
        summary[name]["mean_class"] = _figure(rows, lambda row, name=name: row[name]["mean_class"])
        summary[name]["gain_over_rgb"] = _figure(rows, lambda row, name=name: row[name]["top1"] - row["rgb"]["top1"])
        print(name, summary[name])
    shown = recipe_of(Path("DATA"), Path("WORK"), 0, "flow", given.epochs, given.seeds, given.group)
    result = {
        "command": " ".join(["python", "benchmarks/two_stream.py", *_without_paths(sys.argv[1:])]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "device": f"{platform.machine()}, CPU, {torch.get_num_threads()} threads",
        "student": shown.student.model_dump(mode="json"),
        "flow": shown.flow.model_dump(mode="json", exclude={"folder"}),
        "rows": rows,
        "summary": summary,
    }
    out = Path(__file__).parent / "results" / f"two_stream-{given.name}.json"
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
