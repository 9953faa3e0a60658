"""`run`: the stages of a recipe in order, and independent trainings side by side.

    ingest -> probe (-> prepare) -> dedupe -> teachers (-> judges) -> score (-> calibrate) -> select -> camera
    -> flow -> students -> tests
    (-> students as teachers: score -> select -> students -> tests, for runs with a `teacher`) -> report

A stage that is current does nothing, so the same call continues a run that was interrupted anywhere.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from omnisource.cores import usable_cores
from omnisource.errors import UserError
from omnisource.jobs import side_by_side
from omnisource.progress import meter
from omnisource.recipe import Recipe, Training
from omnisource.workspace import StageRecord, Workspace, default_workspace, open_workspace

Tell = Callable[[StageRecord], None]
Job = tuple[str, str, int]  # what ("teacher", "judge" or "student"), its name, its seed (a judge's part left out)


def run(
    recipe: Recipe, workspace: str | Path | None = None, *, jobs: int | None = None, tell: Tell | None = None
) -> Path:
    """Runs every stage of a recipe that is not current.

    Args:
        recipe: from `load_recipe`.
        workspace: folder for everything that is written; default `workspaces/NAME`.
        jobs: trainings side by side; default: as many as the cores allow at `training.threads` each, one on a GPU.
        tell: called with each stage's record.

    Returns:
        Path of the report.

    Raises:
        UserError: anything that the user can mend; what was finished stays, and the same call resumes.
    """
    with open_workspace(Path(workspace) if workspace else default_workspace(recipe)) as place:
        return run_in(recipe, place, jobs=jobs, tell=tell or _silent)


def run_in(recipe: Recipe, workspace: Workspace, *, jobs: int | None, tell: Tell) -> Path:
    """`run` in a workspace that is already open."""
    from omnisource.ahead import check_ahead, check_listed
    from omnisource.clips import fit_camera_stage
    from omnisource.curate import dedupe, prepare, probe
    from omnisource.flow import compute_flow
    from omnisource.ingest import ingest
    from omnisource.report import write_report

    check_ahead(recipe, workspace)
    tell(ingest(recipe, workspace))
    check_listed(recipe, workspace)
    tell(probe(recipe, workspace))
    if reads_prepared(recipe):
        tell(prepare(recipe, workspace))
    if recipe.web_sources:
        tell(dedupe(recipe, workspace))
        train_teachers(recipe, workspace, jobs, tell)
        if recipe.select.calibrate.crossed:
            train_all_judges(recipe, workspace, jobs, tell)
        _look(recipe, workspace, tell)
        if needs_camera(recipe):
            tell(fit_camera_stage(recipe, workspace))
    if any(recipe.student_of(name).input.modality == "flow" for name in recipe.planned_runs()):
        tell(compute_flow(recipe, workspace))
    for teacher, names in recipe.rounds().items():
        if teacher is not None:
            _look(recipe.seen_by(names[0]), workspace, tell)
        students = [("student", name, seed) for name in names for seed in recipe.seeds]
        _train(recipe, workspace, students, jobs, tell)
    tell(write_report(recipe, workspace))
    return workspace.report_path


def _silent(record: StageRecord) -> None:
    """Nobody listens."""


def train_teachers(recipe: Recipe, workspace: Workspace, jobs: int | None, tell: Tell = _silent) -> None:
    """Trains the teachers that score something; `jobs` and `tell` as for `run`."""
    _train(recipe, workspace, [("teacher", name, recipe.seed) for name in used_teachers(recipe)], jobs, tell)


def train_all_judges(recipe: Recipe, workspace: Workspace, jobs: int | None, tell: Tell = _silent) -> None:
    """Trains each of these teachers once without each part of the target, to be judged on it."""
    from omnisource.train import target_parts

    parts = range(len(target_parts(recipe, workspace)))
    _train(recipe, workspace, [("judge", name, part) for name in used_teachers(recipe) for part in parts], jobs, tell)


def _look(recipe: Recipe, workspace: Workspace, tell: Tell) -> None:
    """Teachers score the web samples; select."""
    from omnisource.curate import calibrate, score, select

    tell(score(recipe, workspace))
    if recipe.select.calibrate.held_out:
        tell(calibrate(recipe, workspace))
    tell(select(recipe, workspace))


def used_teachers(recipe: Recipe) -> list[str]:
    """The teachers trained here that score something, in the recipe's order."""
    from omnisource.curate import units_by_teacher

    wanted = units_by_teacher(recipe)
    return [name for name in recipe.teachers if name in wanted]


def reads_prepared(recipe: Recipe) -> bool:
    """Whether some training reads the media that `prepare` stores."""
    trainings = [recipe.teachers[name] for name in used_teachers(recipe)]
    trainings += [recipe.student_of(name) for name in recipe.planned_runs()]
    return any(training.input.prepared for training in trainings)


def needs_camera(recipe: Recipe) -> bool:
    """Whether some student turns images into clips by a camera that is fitted on the target."""
    from omnisource.networks import is_spatial

    for name, planned in recipe.planned_runs().items():
        student = recipe.student_of(name)
        images = any(recipe.sources[source].format == "image" for source in planned.sources)
        fitted_here = student.camera.mode != "still" and student.camera.fitted is None
        if images and fitted_here and not is_spatial(student.network.name):
            return True
    return False


def _train(recipe: Recipe, workspace: Workspace, work: Sequence[Job], jobs: int | None, tell: Tell) -> None:
    """Trains (and, students, tests) each of `work`; several at a time in processes of their own when that pays."""
    do = partial(train_and_test, recipe, workspace.root)
    todo = list[Job]()
    for job in work:  # no process begins for what is done already
        if not _is_done(recipe, workspace, job):
            todo.append(job)
            continue
        for record in do(job):
            tell(record)
    if not todo:
        return
    jobs = min(len(todo), jobs or default_jobs([_training(recipe, job) for job in work]))
    # A training alone shows how far it is; several are counted.
    with meter(f"training {work[0][0]}s", len(todo)) if jobs > 1 else nullcontext() as bar:
        for job, records in side_by_side(do, todo, jobs):
            for record in records:
                tell(record)
            if bar is not None:
                bar.advance(note=job[1])


def train_and_test(recipe: Recipe, root: Path, job: Job) -> list[StageRecord]:
    """One training, and for a student its test. Runs in a process of its own; the caller holds the workspace's lock."""
    from omnisource.evaluate import test_run
    from omnisource.infer import torch_threads
    from omnisource.train import train_judge, train_student, train_teacher

    kind, name, seed = job
    workspace = Workspace(root)
    with torch_threads(_training(recipe, job).threads):  # other jobs have the other cores
        if kind == "teacher":
            return [train_teacher(recipe, workspace, name)]
        if kind == "judge":
            return [train_judge(recipe, workspace, name, seed)]
        return [train_student(recipe, workspace, name, seed), test_run(recipe, workspace, name, seed)]


def _is_done(recipe: Recipe, workspace: Workspace, job: Job) -> bool:
    """Whether a training, and a student's test, are current."""
    from omnisource.evaluate import test_basis
    from omnisource.train import judge_basis, student_basis, teacher_basis

    kind, name, seed = job
    if kind == "teacher":
        return workspace.is_current(teacher_basis(recipe, workspace, name))
    if kind == "judge":
        return workspace.is_current(judge_basis(recipe, workspace, name, seed))
    tested = test_basis(f"{name}-{seed}", recipe.student_of(name), recipe.test)
    return all(map(workspace.is_current, (student_basis(recipe, workspace, name, seed), tested)))


def default_jobs(trainings: Sequence[Training]) -> int:
    """How many trainings may run side by side: cores over the most threads that one of them asks for."""
    import torch

    on_gpu = torch.cuda.is_available() and any(training.device in ("auto", "cuda") for training in trainings)
    threads = [training.threads for training in trainings]
    if on_gpu or not threads or None in threads:
        return 1
    return max(1, usable_cores() // max(count or 1 for count in threads))


def _training(recipe: Recipe, job: Job) -> Training:
    kind, name, _ = job
    if kind in ("teacher", "judge"):
        return recipe.teachers[name]
    if name not in recipe.planned_runs():
        raise UserError(f"recipe {recipe.name}: no run '{name}'; runs are: {', '.join(recipe.planned_runs())}")
    return recipe.student_of(name)
