"""Precision and recall of teacher filtering against the truth that a recipe names, for a grid of rules and thresholds.

    python benchmarks/filters.py recipes/tennis.yaml --set data=../shared/data/tennis --workspace /tmp/tennis
    python benchmarks/filters.py recipes/home.yaml --set data=../shared/data/home --workspace /tmp/home

Runs what is missing of ingest, probe, dedupe, the teachers and score; then decides anew for every rule and threshold.
Where several teachers score a unit (--set score.window='[video, deep]') each is judged alone, and their average.
With --frozen a teacher is its network as it starts with a linear classifier fitted to the features: minutes, not hours
A kept unit is right when it shows the class under which it would train. Recall is over the units that show their query
(or, without a query, any class of the list). Writes benchmarks/results/filters-NAME.json.
"""

import argparse
import json
import platform
import shlex
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch

from omnisource.clips import segment_test
from omnisource.curate import dedupe, probe, score, select
from omnisource.curate.decide import decide
from omnisource.curate.samples import Samples
from omnisource.curate.score import units_by_teacher
from omnisource.curate.units import units
from omnisource.infer import Request, infer
from omnisource.ingest import ingest
from omnisource.networks import Meta, create, initialise, save_checkpoint
from omnisource.recipe import Recipe, Select, load_recipe
from omnisource.report.numbers import Story
from omnisource.tables import read_table, write_table
from omnisource.train import train_teacher
from omnisource.workspace import StageRecord, Workspace, open_workspace

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RULES = (("agree", "query"), ("query", "query"), ("teacher", "teacher"))


def by_teacher(workspace: Workspace, folder: Path) -> dict[str, Path]:
    """Scores tables: of each teacher alone and, where units have several, of all."""
    scores = read_table(workspace.table("scores"))
    names = sorted(set(scores["teacher"].to_pylist()))
    found = {name: folder / f"{name}.parquet" for name in names}
    for name, path in found.items():
        write_table(path, scores.filter(pc.field("teacher") == name))
    several = scores.group_by(["sample_id", "unit", "start_s"]).aggregate([]).num_rows < scores.num_rows
    return found | ({"average": workspace.table("scores")} if several else {})


def grid(recipe: Recipe, workspace: Workspace, teacher: str, scores: Path) -> list[dict[str, object]]:
    """One row a source, kind of unit, rule and threshold."""
    story, classes, rows = Story(recipe, workspace), set(workspace.classes()), []
    queries = {sample_id: sample["query_label"] for sample_id, sample in story.samples.items()}
    with units(scores, workspace.table("samples"), workspace.classes(), False) as db:
        for rule, label in RULES:
            for threshold in THRESHOLDS:
                counts: dict[tuple[str, str], Counter[str]] = {}
                settings = Select.model_validate({"rule": rule, "label": label, "threshold": threshold})
                for unit in (row for table in decide(db, settings) for row in table.to_pylist()):
                    shown = story.shown(unit["sample_id"], unit)
                    if shown is None:
                        continue
                    query = queries[unit["sample_id"]]
                    count = counts.setdefault((unit["source"], unit["unit"]), Counter())
                    count["units"] += 1
                    count["wanted"] += query in shown if query else bool(shown & classes)
                    count["kept"] += unit["keep"]
                    count["right"] += unit["keep"] and unit["label"] in shown
                for (source, kind), count in sorted(counts.items()):
                    right, kept, wanted = count["right"], count["kept"], count["wanted"]
                    rows.append(
                        {"teacher": teacher, "source": source, "unit": kind, "rule": rule, "threshold": threshold}
                        | count
                        | {"precision": round(right / kept, 3) if kept else None}
                        | {"recall": round(right / wanted, 3) if wanted else None}
                    )
    return rows


def fit_classifier(recipe: Recipe, workspace: Workspace, name: str) -> StageRecord:
    """Stands in for `train_teacher`: the trunk stays as it starts, the classifier is fitted (logistic regression)."""
    training, classes = recipe.teachers[name], workspace.classes()
    network = create(training.network.name, len(classes), **training.network.options)
    package = training.network.init.imagenet
    initialise(network, "imagenet", None if package == "package" else recipe.resolve(package or ""))
    labels = {row["sample_id"]: row["label"] for row in read_table(workspace.table("samples")).to_pylist()}
    size, short_side = training.input.size, training.input.short_side

    def features(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        requests = (
            Request(sample.sample_id, sample.uri, segment_test(sample.num_frames or 1, training.input.frames)[None])
            for sample in Samples(workspace, "target", splits=[split])
        )
        found = infer(network, Meta(), requests, size=size, short_side=short_side, features=True)
        rows = [(r.features[0], classes.index(labels[r.request.key])) for r in found if r.features is not None]
        return torch.tensor(np.stack([x for x, _ in rows])), torch.tensor([y for _, y in rows])

    def work(_: str) -> dict[str, object]:
        x, y = features("train")
        mean, std = x.mean(0), x.std(0).clamp_min(1e-3)
        head = torch.nn.Linear(x.shape[1], len(classes))
        solver = torch.optim.LBFGS(head.parameters(), max_iter=300, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            solver.zero_grad()
            value = torch.nn.functional.cross_entropy(head((x - mean) / std), y) + 0.05 * head.weight.square().sum()
            value.backward()
            return value

        solver.step(loss)
        with torch.no_grad():  # the scaling of the features goes into the classifier
            network.head.weight.copy_(head.weight / std)
            network.head.bias.copy_(head.bias - head.weight @ (mean / std))
            tx, ty = features("test")
            accuracy = float((network.head(tx).argmax(1) == ty).float().mean())
        meta = Meta(classes=tuple(classes), frames=training.input.frames, size=size)
        save_checkpoint(path, network, meta)
        return {"test_accuracy": accuracy}

    path = workspace.run_dir(f"teacher-{name}") / "last.safetensors"
    settings = {"frozen": training.model_dump(mode="json")}
    return workspace.run_stage(f"train-teacher-{name}", settings=settings, after=["probe"], outputs=[path], work=work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--frozen", action="store_true", help="fit classifiers instead of training teachers")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    started = time.monotonic()
    with open_workspace(arguments.workspace) as workspace:
        ingest(recipe, workspace)
        probe(recipe, workspace)
        record = dedupe(recipe, workspace)
        teachers = units_by_teacher(recipe)
        make = fit_classifier if arguments.frozen else train_teacher
        trained = {name: make(recipe, workspace, name).counts for name in teachers}
        score(recipe, workspace)
        select(recipe, workspace)
        with tempfile.TemporaryDirectory() as folder:
            tables = by_teacher(workspace, Path(folder))
            rows = [row for teacher, path in tables.items() for row in grid(recipe, workspace, teacher, path)]
        ingested = workspace.record("ingest")
    print(f"{'teacher':8} {'source':10} {'unit':7} {'rule':8}    t   kept  right  wanted precision  recall")
    for row in rows:
        share = [f"{row[name]:.3f}" if row[name] is not None else "-" for name in ("precision", "recall")]
        print(
            f"{row['teacher']:8} {row['source']:10} {row['unit']:7} {row['rule']:8} {row['threshold']:4} "
            f"{row.get('kept', 0):6} {row.get('right', 0):6} {row.get('wanted', 0):7} {share[0]:>9} {share[1]:>7}"
        )
    result = {
        "command": shlex.join(
            ["python", "benchmarks/filters.py", f"recipes/{arguments.recipe.name}"]
            + [part for given in arguments.overrides if not given.startswith("data=") for part in ("--set", given)]
            + ["--set", f"data=DATA/{recipe.data.name}", *(["--frozen"] if arguments.frozen else [])]
        ),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, CPU, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seconds": round(time.monotonic() - started, 1),
        "list": ingested.settings if ingested else None,
        "teachers": {
            name: {
                "units": kinds,
                "frozen": arguments.frozen,
                "trained": trained[name],
                "training": recipe.teachers[name].model_dump(mode="json", exclude_defaults=True),
            }
            for name, kinds in teachers.items()
        },
        "duplicates": record.counts,
        "rows": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"filters-{recipe.name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
