"""A training in a process of its own, for tests that kill it: `train_run.py ROOT RUN WORKERS [key=value ...]`.

ROOT holds what make_small wrote; RUN is the run's folder.
"""

import json
import sys
from pathlib import Path
from typing import Any

from train_small import load_small

from omnisource.recipe import Training
from omnisource.train import build_pool, train
from omnisource.workspace import Workspace


def run(root: Path, folder: Path, changes: dict[str, Any]) -> None:
    small = load_small(root)
    values = small.recipe.student.model_dump(mode="json") | changes
    training = Training.model_validate(values)
    workspace = Workspace(root / "workspace")
    pool = build_pool(small.recipe, workspace, list(small.recipe.sources), training.network.name.startswith("tsn"))
    train(training, pool, folder, 5)


if __name__ == "__main__":
    changes = {"workers": int(sys.argv[3])}
    for argument in sys.argv[4:]:
        key, _, value = argument.partition("=")
        changes[key] = json.loads(value)
    try:
        run(Path(sys.argv[1]), Path(sys.argv[2]), changes)
    except KeyboardInterrupt:
        sys.exit(130)
