"""The trainings of a recipe as stages: its teachers, and its students."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from omnisource.clips import Camera, camera_path, load_camera
from omnisource.errors import UserError
from omnisource.media import Limits
from omnisource.networks import is_spatial, takes_frames
from omnisource.recipe import Recipe, Training
from omnisource.train.begin import Changed, train
from omnisource.train.join import build_pool
from omnisource.train.parts import target_parts
from omnisource.train.start import settings_of
from omnisource.workspace import Basis, StageRecord, Workspace, fingerprint


def train_teacher(recipe: Recipe, workspace: Workspace, name: str, changed: Changed = "anew") -> StageRecord:
    """Trains a teacher on the target's training split (paper, section 3.2). Run: `teacher-NAME`."""
    return _train_teacher(recipe, workspace, name, teacher_basis(recipe, workspace, name), None, changed)


def train_judge(recipe: Recipe, workspace: Workspace, name: str, part: int, changed: Changed = "anew") -> StageRecord:
    """Trains a teacher once more, without a part of the target, on which it is judged. Run: `teacher-NAME~PART`.

    Raises:
        UserError: there is no such part, or as `target_parts`.
    """
    basis = judge_basis(recipe, workspace, name, part)
    return _train_teacher(recipe, workspace, name, basis, part, changed, target_parts(recipe, workspace)[part])


def train_judges(recipe: Recipe, workspace: Workspace, name: str, changed: Changed = "anew") -> Iterator[StageRecord]:
    """Trains a teacher once without each part of the target."""
    for part in range(len(target_parts(recipe, workspace))):
        yield train_judge(recipe, workspace, name, part, changed)


def _train_teacher(
    recipe: Recipe,
    workspace: Workspace,
    name: str,
    basis: Basis,
    part: int | None,
    changed: Changed,
    without: Collection[str] = (),
) -> StageRecord:
    training, sources = recipe.teachers[name], recipe.target_sources
    run = recipe.training_of(name, part)
    return _stage(recipe, workspace, basis, training, sources, recipe.seed, run, changed, without)


def train_student(recipe: Recipe, workspace: Workspace, run: str, seed: int, changed: Changed = "anew") -> StageRecord:
    """Trains the student of one of the recipe's runs, on the target and on the run's web sources. Run: `RUN-SEED`."""
    basis = student_basis(recipe, workspace, run, seed)
    recipe = recipe.seen_by(run)
    training, sources = recipe.student_of(run), recipe.planned_runs()[run].sources
    return _stage(recipe, workspace, basis, training, sources, seed, f"{run}-{seed}", changed)


def teacher_basis(recipe: Recipe, workspace: Workspace, name: str) -> Basis:
    """What a teacher's training depends on. UserError: a file that it names can't be read."""
    after = ["ingest", "probe"]
    sources, training = recipe.target_sources, recipe.teachers[name]
    return _basis(recipe, workspace, f"train-teacher-{name}", training, sources, recipe.seed, after)


def judge_basis(recipe: Recipe, workspace: Workspace, name: str, part: int) -> Basis:
    """What the training of a teacher without a part of the target depends on; errors as `train_judge`."""
    parts = target_parts(recipe, workspace)
    if part >= len(parts):
        raise UserError(f"{workspace.root}: the target has {len(parts)} parts, there is no part {part}")
    whole = teacher_basis(recipe, workspace, name)
    settings = whole.settings | {"without": fingerprint(sorted(parts[part]))}
    return replace(whole, stage=f"train-{recipe.training_of(name, part)}", settings=settings)


def student_basis(recipe: Recipe, workspace: Workspace, run: str, seed: int) -> Basis:
    """What a student's training depends on. UserError: a file that it names can't be read."""
    recipe = recipe.seen_by(run)
    training, sources = recipe.student_of(run), recipe.planned_runs()[run].sources
    after = ["ingest", "probe"]
    if any(recipe.sources[name].role == "web" for name in sources):
        after += ["dedupe", recipe.select.stage]
    if _needs_camera(recipe, training, sources) and not training.camera.fitted:
        after += ["camera"]
    return _basis(recipe, workspace, f"train-{run}-{seed}", training, sources, seed, after)


def _basis(
    recipe: Recipe,
    workspace: Workspace,
    stage: str,
    training: Training,
    sources: Sequence[str],
    seed: int,
    after: list[str],
) -> Basis:
    training = _resolved(recipe, training)
    settings = {key: value for key, value in settings_of(training).items() if key not in ("workers", "cache_bytes")}
    if training.camera.fitted and (named := fitted_camera(recipe, workspace, training, sources)):
        settings["camera"]["fitted"] = named.identity
    after += ["flow"] if training.input.modality == "flow" else []
    after += ["prepare"] if training.input.prepared else []
    return Basis(stage, {"training": settings, "sources": list(sources), "seed": seed}, after)


def _stage(
    recipe: Recipe,
    workspace: Workspace,
    basis: Basis,
    training: Training,
    sources: Sequence[str],
    seed: int,
    run: str,
    changed: Changed,
    without: Collection[str] = (),
) -> StageRecord:
    """without: ids of samples to leave out."""
    folder = workspace.run_dir(run)
    training = _resolved(recipe, training)
    flow = training.input.modality == "flow"

    def work(_: str) -> Mapping[str, Any]:
        by_frame = takes_frames(training)
        prepared = training.input.prepared
        pool = build_pool(recipe, workspace, sources, by_frame, flow=flow, prepared=prepared, leave_out=without)
        wanted = training
        if without:  # a judge has fewer samples than its teacher, perhaps fewer than a batch
            batch = training.batch.model_copy(update={"target": max(1, min(training.batch.target, len(pool)))})
            wanted = training.model_copy(update={"batch": batch})
        targets = [name for name in sources if recipe.sources[name].role == "target"]
        validation = build_pool(recipe, workspace, targets, by_frame, "val", flow) if training.validate_every else None
        result = train(
            wanted,
            pool,
            folder,
            seed,
            validation=validation if validation is not None and len(validation) else None,
            camera=fitted_camera(recipe, workspace, training, sources),
            limits=Limits.of(recipe.probe.limits),
            changed=changed,
        )
        return {key: value for key, value in asdict(result).items() if key != "checkpoint"} | {"list": pool.digest}

    return workspace.run_stage(
        basis.stage,
        settings=basis.settings,
        after=basis.after,
        outputs=[folder / "last.safetensors", folder / "log.jsonl"],
        work=work,
    )


def _needs_camera(recipe: Recipe, training: Training, sources: Sequence[str]) -> bool:
    images = any(recipe.sources[name].format == "image" for name in sources)
    return images and training.camera.mode != "still" and not is_spatial(training.network.name)


def fitted_camera(recipe: Recipe, workspace: Workspace, training: Training, sources: Sequence[str]) -> Camera | None:
    """The camera under which a training's images move, or None when none of them does."""
    if not _needs_camera(recipe, training, sources):
        return None
    path = recipe.resolve(training.camera.fitted) if training.camera.fitted else camera_path(workspace)
    return load_camera(path, training.input.stride, training.input.fps)


def _resolved(recipe: Recipe, training: Training) -> Training:
    """The training with absolute file names."""
    init = training.network.init
    paths = {
        "imagenet": str(recipe.resolve(init.imagenet))
        if init.imagenet and init.imagenet != "package"
        else init.imagenet,
        "checkpoint": str(recipe.resolve(init.checkpoint)) if init.checkpoint else None,
    }
    network = training.network.model_copy(update={"init": init.model_copy(update=paths)})
    return training.model_copy(update={"network": network})
