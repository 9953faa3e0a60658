"""The `test` stage: every view of every test sample, the predictions table, the metrics."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from omnisource.errors import UserError
from omnisource.evaluate.folds import predictions_name
from omnisource.evaluate.metrics import measure
from omnisource.evaluate.predictions import AVERAGE, read_predictions, write_predictions
from omnisource.evaluate.views import crop_size, view_request
from omnisource.flow import use_flow
from omnisource.infer import Result, infer
from omnisource.jobs import side_by_side
from omnisource.media import Limits
from omnisource.networks import Meta, Network, load_checkpoint, read_meta
from omnisource.progress import say, track
from omnisource.recipe import Recipe, Test, Training
from omnisource.tables import PREDICTIONS, Journal, read_table
from omnisource.workspace import Basis, StageRecord, Workspace, content_of

F32 = npt.NDArray[np.float32]
_UNPROBED = "not_probed"


def test_run(recipe: Recipe, workspace: Workspace, run: str, seed: int, settings: Test | None = None) -> StageRecord:
    """Tests the student of one run and seed; see `test_training`."""
    return test_training(recipe, workspace, f"{run}-{seed}", recipe.student_of(run), settings or recipe.test)


def test_teacher(recipe: Recipe, workspace: Workspace, teacher: str, settings: Test | None = None) -> StageRecord:
    """Tests a teacher; see `test_training`.

    Raises:
        UserError: no teacher is called so, or as `test_training`.
    """
    if teacher not in recipe.teachers:
        raise UserError(f"recipe {recipe.name}: no teacher '{teacher}'; teachers are: {', '.join(recipe.teachers)}")
    return test_training(recipe, workspace, f"teacher-{teacher}", recipe.teachers[teacher], settings or recipe.test)


def test_training(recipe: Recipe, workspace: Workspace, name: str, training: Training, settings: Test) -> StageRecord:
    """Tests the training `name` (stage `train-NAME`) on a split of the target.

    Writes `predictions-NAME`. The record's counts hold the metrics, the number of samples listed, scored and failed (by
    reason), and the hash of the list.

    Raises:
        UserError: not trained yet, other classes than the workspace's, an empty split, no sample scored.
    """
    checkpoint = workspace.run_dir(name) / "last.safetensors"
    return _test(recipe, workspace, name, checkpoint, training, settings, test_basis(name, training, settings))


def test_basis(name: str, training: Training, settings: Test) -> Basis:
    """What the test of the training `name` depends on."""
    return _basis(name, training, settings, [f"train-{name}"], {})


def _basis(name: str, training: Training, settings: Test, after: Sequence[str], which: Mapping[str, Any]) -> Basis:
    return Basis(
        predictions_name(name, settings.split).replace("predictions-", "test-", 1),
        {
            **which,
            "test": settings.model_dump(mode="json", exclude={"batch", "processes"}),
            "input": training.input.model_dump(mode="json"),
        },
        [*after, "ingest", "probe", *(["flow"] if training.input.modality == "flow" else [])],
    )


def test_checkpoint(
    recipe: Recipe, workspace: Workspace, name: str, checkpoint: Path, training: Training, settings: Test
) -> StageRecord:
    """Tests a checkpoint from elsewhere, with the input of `training`, under a name of its own; see `test_training`.

    Raises:
        UserError: a name that no file can have or that a training of the recipe has, a file that can't be read, other
            classes, another stream (RGB or flow).
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"--name {name}: becomes the name of a file; use letters, digits, dots and dashes")
    trainings = {f"{run}-{seed}" for run in recipe.planned_runs() for seed in recipe.seeds}
    if name in trainings | {f"teacher-{teacher}" for teacher in recipe.teachers}:
        raise UserError(f"--name {name}: is the name of a training of this recipe; choose another")
    which = {"checkpoint": content_of(checkpoint, "--checkpoint")}
    if (meta := read_meta(checkpoint)) and not meta.classes:
        say(f"note: {checkpoint} names no classes; its outputs are taken for the recipe's classes, in their order")
    for key in ("frames", "stride", "fps", "size") if meta else ():
        there, here = getattr(meta, key), getattr(training.input, key)
        if there != here:
            say(f"note: {checkpoint} was trained with {key} {there}; tested with {here} (student.input.{key})")
    basis = _basis(name, training, settings, [], which)
    return _test(recipe, workspace, name, checkpoint, training, settings, basis)


@dataclass(frozen=True)
class _Share:
    """The samples that one process tests, and where it keeps their rows meanwhile."""

    checkpoint: Path
    training: Training
    settings: Test
    classes: tuple[str, ...]
    limits: Limits
    samples: list[dict[str, Any]]
    folder: Path
    mark: str
    what: str


def _test(
    recipe: Recipe,
    workspace: Workspace,
    name: str,
    checkpoint: Path,
    training: Training,
    settings: Test,
    basis: Basis,
) -> StageRecord:
    stage = basis.stage
    path = workspace.table(predictions_name(name, settings.split))
    flow = training.input.modality == "flow"
    stated = recipe.probe.limits
    limits = Limits.of(stated, stated.memory_bytes)  # all views of a video are decoded at once

    def work(mark: str) -> Mapping[str, Any]:
        classes = workspace.classes()
        network, meta = load_checkpoint(checkpoint)
        check_classes(checkpoint, network, meta, classes)
        _check_input(checkpoint, network, training)
        listed, missing = test_samples(workspace, settings.split, flow)
        folder = workspace.partial(stage)
        done = {row for old in folder.glob("share-*") for row in _journal(old, mark).done()}
        todo = [row for row in listed if row["sample_id"] not in done]
        count = min(settings.processes or _devices(training), max(1, len(todo)))
        shares = [
            _Share(
                checkpoint,
                _on_device(training, number, count),
                settings,
                tuple(classes),
                limits,
                todo[number::count],
                folder / f"share-{number}",
                mark,
                stage,
            )
            for number in range(count)
        ]
        _run_shares(shares)
        rows = pa.concat_tables(_journal(part, mark).table() for part in sorted(folder.glob("share-*")))
        write_predictions(path, rows.sort_by([("sample_id", "ascending"), ("view", "ascending")]), classes)
        found = read_predictions(path)
        metrics = measure(
            found.probs, found.labels, classes, groups=found.groups, bootstrap=settings.bootstrap, seed=recipe.seed
        )
        elsewhere = not checkpoint.is_relative_to(workspace.root)
        return {
            **metrics.as_counts(),
            "listed": len(listed),
            "missing": missing,
            "failed": dict(Counter(unscored.reason for unscored in found.failed)),
            "list_hash": found.list_hash,
            **({"checkpoint": str(checkpoint.resolve())} if elsewhere else {}),
        }

    return workspace.run_stage(
        stage,
        settings=basis.settings,
        after=basis.after,
        outputs=[path],
        work=work,
    )


def _devices(training: Training) -> int:
    """How many processes a test is shared by, where the recipe does not say."""
    return max(1, torch.cuda.device_count()) if training.device in ("auto", "cuda") else 1


def _on_device(training: Training, number: int, count: int) -> Training:
    if count == 1 or training.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return training
    return training.model_copy(update={"device": f"cuda:{number % torch.cuda.device_count()}"})


def _run_shares(shares: Sequence[_Share]) -> None:
    """Tests every share, each in a process of its own; a single one here."""
    for _ in side_by_side(_run_share, shares, len(shares)):
        pass


def _run_share(share: _Share) -> None:
    network, meta = load_checkpoint(share.checkpoint)
    finished = predict_rows(network, meta, share.samples, share.training, share.settings, share.classes, share.limits)
    _journal(share.folder, share.mark).fill(track(finished, len(share.samples), share.what))


def _journal(folder: Path, mark: str) -> Journal:
    return Journal(folder, PREDICTIONS, ["sample_id", "view"], mark)


def check_classes(checkpoint: Path, network: Network, meta: Meta, classes: Sequence[str]) -> None:
    """Refuses a checkpoint for other classes than `classes`, or for the same in another order."""
    if meta.classes == tuple(classes) or (not meta.classes and network.num_classes == len(classes)):
        return
    common = len(set(meta.classes) & set(classes))
    order = ", in another order" if common == len(classes) == network.num_classes else ""
    raise UserError(
        f"{checkpoint}: was trained for {network.num_classes} classes, this recipe has {len(classes)}, {common} of "
        f"them in common{order}; give the checkpoint's own recipe, or fine-tune it (student.network.init.checkpoint)"
    )


def _check_input(checkpoint: Path, network: Network, training: Training) -> None:
    given, wanted = "flow" if network.in_channels == 2 else "rgb", training.input.modality
    if given != wanted:
        raise UserError(
            f"{checkpoint}: {network.name} with {network.in_channels} input channels ({given}), this recipe tests on "
            f"{wanted}; give the recipe of its stream (student.input.modality: {given})"
        )
    if training.input.frames < network.min_frames:
        raise UserError(
            f"{checkpoint}: {network.name} takes clips of at least {network.min_frames} frames, this recipe shows "
            f"{training.input.frames}; add --set student.input.frames={network.min_frames} or more"
        )


def test_samples(workspace: Workspace, split: str, flow: bool = False) -> tuple[list[dict[str, Any]], int]:
    """The samples of a target split with their probe facts under `facts` (None: not probed or broken).

    Returns:
        The rows sorted by sample id, and how many more the list names whose file is missing.
    """
    mine = (pc.field("role") == "target") & (pc.field("split") == split)
    wanted = read_table(workspace.table("samples"), filters=mine)
    present = wanted.filter(pc.field("status") == "ok").sort_by("sample_id")
    if not present.num_rows:
        raise UserError(
            f"{workspace.table('samples')}: no target sample in the split '{split}'; set test.split, or `{split}:` of "
            "the target source"
        )
    # The probe table has a row for every web sample too; only those of the split are read.
    among = pc.field("sample_id").isin(present["sample_id"].combine_chunks())
    columns = ["sample_id", "kind", "fps", "num_frames", "duration_s", "status", "reason"]
    probed = read_table(workspace.table("probe"), columns, filters=among)
    facts = {row["sample_id"]: row for row in probed.to_pylist()}
    if flow:
        present = use_flow(workspace, present)
    rows = [{**row, "facts": facts.get(row["sample_id"])} for row in present.to_pylist()]
    return rows, wanted.num_rows - len(rows)


def predict_rows(
    network: Network,
    meta: Meta,
    samples: Sequence[Mapping[str, Any]],
    training: Training,
    settings: Test,
    classes: Sequence[str],
    limits: Limits,
) -> Iterator[list[dict[str, Any]]]:
    """For each of `samples` its rows of the predictions table: every view, then their average (view -1)."""
    usable: list[Mapping[str, Any]] = []
    for sample in samples:
        if reason := _unusable(sample):
            yield [_unscored(sample, reason)]
        else:
            usable.append(sample)
    by_id = {sample["sample_id"]: sample for sample in usable}
    requests = (view_request(s, s["facts"], training.input, settings, network.spatial) for s in usable)
    results = infer(
        network,
        meta,
        requests,
        size=crop_size(training.input, settings),
        short_side=training.input.short_side,
        batch=settings.batch,
        workers=training.workers or 1,
        device=training.device,
        threads=training.threads,
        limits=limits,
    )
    for result in results:
        sample = by_id[str(result.request.key)]
        if result.logits is None:
            yield [_unscored(sample, str(result.reason))]
        else:
            yield list(_scored(sample, result, settings.average, classes))


def average_views(result: Result, how: str) -> F32:
    """(K,) class probabilities of a sample: the mean over its views of the probabilities, or of the scores."""
    if result.logits is None or how == "prob":
        probs: F32 = result.probs.mean(axis=0, dtype=np.float64).astype(np.float32)
    else:
        scores = result.logits.mean(axis=0, dtype=np.float64)
        powers = np.exp(scores - scores.max())
        probs = (powers / powers.sum()).astype(np.float32)
    return probs


def _unusable(sample: Mapping[str, Any]) -> str | None:
    if sample["status"] != "ok":
        return str(sample["reason"])
    if sample["facts"] is None:
        return _UNPROBED
    return None if sample["facts"]["status"] == "ok" else str(sample["facts"]["reason"])


def _unscored(sample: Mapping[str, Any], reason: str) -> dict[str, Any]:
    given = {key: sample[key] for key in ("sample_id", "label", "group")}
    return {**given, "view": AVERAGE, "status": "dropped", "reason": reason}


def _scored(sample: Mapping[str, Any], result: Result, how: str, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    given = {key: sample[key] for key in ("sample_id", "label", "group")} | {"status": "ok"}
    for view, probs in [*enumerate(result.probs), (AVERAGE, average_views(result, how))]:
        yield {**given, "view": view, "predicted": classes[int(probs.argmax())], "probs": probs}
