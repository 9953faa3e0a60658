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
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist
from train_small import load_small

from omnisource.media import DEFAULT_LIMITS
from omnisource.recipe import Training
from omnisource.train import build_pool, record, train
from omnisource.train.distributed import Ranks
from omnisource.train.loop import Trainer
from omnisource.workspace import Workspace

_CONTEXT = multiprocessing.get_context("forkserver")  # one import of torch for all processes
_CONTEXT.set_forkserver_preload(["torch", "omnisource.train.begin"])


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
    process = _CONTEXT.Process(target=killed_run, args=(root, folder, changes, moment, number, by))
    process.start()
    process.join()
    return process.exitcode


def run_as_one_of_two(root: Path, folder: Path, changes: dict[str, Any], rank: int) -> None:
    """A training that validates, in one of two processes that meet by a file."""
    torch.set_num_threads(1)
    meeting = f"file://{root / 'meeting'}"
    dist.init_process_group("gloo", meeting, timedelta(minutes=2), world_size=2, rank=rank)
    small = load_small(root)
    training = Training.model_validate(small.recipe.student.model_dump(mode="json") | changes)
    pool, validation = (
        build_pool(small.recipe, small.workspace, ["clips"], False, split) for split in ("train", "val")
    )
    ranks = Ranks(rank, 2, torch.device("cpu"))
    trainer = Trainer(training, pool, folder, 5, ranks, validation=validation, camera=None, limits=DEFAULT_LIMITS)
    trainer.run()
    trainer.close()


def train_by_two(root: Path, folder: Path, changes: dict[str, Any]) -> None:
    """A training that validates, by two processes; what they wrote tells whether they came to the end."""
    both = [_CONTEXT.Process(target=run_as_one_of_two, args=(root, folder, changes, rank)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()


if __name__ == "__main__":
    changes = {"workers": int(sys.argv[3])}
    for argument in sys.argv[4:]:
        key, _, value = argument.partition("=")
        changes[key] = json.loads(value)
    try:
        run(Path(sys.argv[1]), Path(sys.argv[2]), changes)
    except KeyboardInterrupt:
        sys.exit(130)
