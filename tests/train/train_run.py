"""A training in a process of its own, for tests that kill it.

From the command line: `train_run.py ROOT RUN WORKERS [key=value ...]`. ROOT holds what make_small wrote; RUN is the
run's folder. `killed_run` is for a process that is to die, at a moment that does not depend on time.
"""

import io
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from train_small import load_small

from omnisource.recipe import Training
from omnisource.train import build_pool, record, train
from omnisource.workspace import Workspace


def run(root: Path, folder: Path, changes: dict[str, Any]) -> None:
    small = load_small(root)
    values = small.recipe.student.model_dump(mode="json") | changes
    training = Training.model_validate(values)
    workspace = Workspace(root / "workspace")
    pool = build_pool(small.recipe, workspace, list(small.recipe.sources), training.network.name.startswith("tsn"))
    train(training, pool, folder, 5)


def killed_run(root: Path, folder: Path, changes: dict[str, Any], moment: str, number: int, signal_number: int) -> None:
    """`run` in a process that sends itself a signal at the given moment:

    - `line`: when line `number` of log.jsonl has been written;
    - `saving`: when half of the state has been written, the `number`-th time;
    - `renaming`: when the last state has been put aside and the new one is not yet in its place.
    """
    torch.set_num_threads(1)
    counted = 0

    def due() -> bool:
        nonlocal counted
        counted += 1
        return counted == number

    def die() -> None:
        os.kill(os.getpid(), signal_number)

    write, replace = record.Log.write, Path.replace

    def write_and_die(log: record.Log, row: Mapping[str, Any]) -> None:
        write(log, row)
        if log.path.name == "log.jsonl" and log.path.read_bytes().count(b"\n") == number:
            die()

    def save_half(state: object, file: IO[bytes]) -> None:
        whole = io.BytesIO()
        torch.save(state, whole)
        if due():
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            die()
        file.write(whole.getvalue())

    def die_before(path: Path, target: Path) -> Path:
        if target.name == "state.pt" and due():
            die()
        return replace(path, target)

    if moment == "line":
        record.Log.write = write_and_die  # type: ignore[method-assign]
    elif moment == "saving":
        record._save = save_half
    else:
        Path.replace = die_before  # type: ignore[method-assign]
    try:
        run(root, folder, changes)
    except KeyboardInterrupt:
        sys.exit(130)


def end_of(
    root: Path, folder: Path, changes: dict[str, Any], moment: str, number: int, by: int = signal.SIGKILL
) -> int | None:
    """How the process of a `killed_run` ended."""
    context = multiprocessing.get_context("forkserver")  # one import of torch for all of them
    context.set_forkserver_preload(["torch", "omnisource.train.begin"])
    process = context.Process(target=killed_run, args=(root, folder, changes, moment, number, by))
    process.start()
    process.join()
    return process.exitcode


if __name__ == "__main__":
    changes = {"workers": int(sys.argv[3])}
    for argument in sys.argv[4:]:
        key, _, value = argument.partition("=")
        changes[key] = json.loads(value)
    try:
        run(Path(sys.argv[1]), Path(sys.argv[2]), changes)
    except KeyboardInterrupt:
        sys.exit(130)
