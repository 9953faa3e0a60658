"""What can be known before a run's stages begin: a mistake that only a late stage would meet is named at once.

`check_ahead` needs the recipe alone, `check_listed` also what `ingest` has found: the classes and the splits.
"""

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager

import psutil
import pyarrow.compute as pc
import torch

from omnisource.clips import load_camera
from omnisource.curate import Trunk, foreign_teacher, human_decisions, units_by_teacher
from omnisource.errors import UserError, UserErrors
from omnisource.evaluate import crop_size
from omnisource.flow import estimator_of
from omnisource.infer import pick_device
from omnisource.ingest import COLLECTED, source_place
from omnisource.networks import create, first_weights, norms, options_of
from omnisource.pipeline import used_teachers
from omnisource.progress import say
from omnisource.recipe import Recipe, Training
from omnisource.report import read_truth
from omnisource.tables import read_table
from omnisource.workspace import Workspace

_GIB = 2**30
_WEIGHT_BYTES = 4
_ROUNDED = 0.01  # of a pixel from 0 to 255


class _Problems:
    """The UserErrors that its blocks raise, each once, in order."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}

    @contextmanager
    def of(self, field: str = "") -> Iterator[None]:
        """Notes what the block raises, under the recipe's `field` where the message does not begin with it."""
        try:
            yield
        except UserError as error:
            self._found[str(error) if str(error).startswith(field) else f"{field}: {error}"] = None

    def tell(self) -> None:
        """Raises UserErrors if there were any."""
        if self._found:
            raise UserErrors(list(self._found))


def check_ahead(recipe: Recipe, workspace: Workspace) -> None:
    """Checks what the stages of a recipe will need: files, networks and their weights, devices, extras.

    What only a finished stage needed, such as the weights that a finished training began with, is not asked for again.

    Raises:
        UserErrors: all that is wrong, each with its field and the cure.
    """
    problems = _Problems()
    for name, source in recipe.sources.items():
        with problems.of():
            if source.layout != "collected":
                source_place(recipe, name)
            elif not workspace.table(COLLECTED).exists():
                raise UserError(f"sources.{name}: nothing was collected yet; run `omnisource collect`")
    classes: list[str] | None = None
    with problems.of("classes"):
        classes = recipe.class_list()
    with problems.of("truth"):
        if recipe.truth:
            read_truth(recipe, recipe.truth, [])
    with torch.random.fork_rng(devices=[]):
        if recipe.web_sources:
            _check_curation(recipe, workspace, classes, problems)
        _check_trainings(recipe, workspace, problems)
    flow = any(recipe.student_of(run).input.modality == "flow" for run in recipe.planned_runs())
    if flow and workspace.record("flow") is None:
        with problems.of("flow"):
            weights = recipe.resolve(recipe.flow.weights) if recipe.flow.weights else None
            estimator_of(recipe.flow.method, weights, recipe.flow.device)
    problems.tell()


def check_listed(recipe: Recipe, workspace: Workspace) -> None:
    """Checks, now that the samples are listed, what later stages will need of their classes and splits.

    Raises:
        UserErrors: all that is wrong, each with its field and the cure.
    """
    problems, classes = _Problems(), workspace.classes()
    samples = workspace.table("samples")
    usable = (pc.field("role") == "target") & (pc.field("status") == "ok")
    splits = Counter(read_table(samples, ["split"], usable)["split"].to_pylist())
    with problems.of():
        _need_samples(splits, recipe.test.split, "test.split")
    trainings = {f"teachers.{name}": recipe.teachers[name] for name in used_teachers(recipe)}
    trainings |= {_key(recipe, run): recipe.student_of(run) for run in recipe.planned_runs()}
    for key, training in trainings.items():
        with problems.of():
            if training.validate_every:
                _need_samples(splits, "val", f"{key}.validate_every")
        with problems.of():
            if training.batch.target > splits["train"]:
                found = f"{splits['train']} target samples train"
                raise UserError(f"{key}.batch.target is {training.batch.target}, but only {found}; lower it")
    if recipe.web_sources:
        searched = read_table(samples, ["source"], pc.field("query_label").is_valid())["source"].unique()
        _point_out_unsearched(recipe, set(searched.to_pylist()))
        with problems.of():
            human_decisions(recipe, classes)
        with problems.of():
            if recipe.select.calibrate.held_out:
                split = recipe.select.calibrate.split
                _need_samples(splits, "train" if split == "cross" else split, "select.calibrate.split")
        if recipe.classes is None:  # else `check_ahead` knew them
            _check_foreign(recipe, classes, problems)
    problems.tell()


def _point_out_unsearched(recipe: Recipe, searched: Set[str]) -> None:
    """Says so where nobody searched by class, for a selection that looks at what was asked for."""
    rule, label, evidence = recipe.select.rule, recipe.select.label, recipe.select.query_evidence
    needed = rule in ("agree", "query") or label == "query"
    for name in sorted(set(recipe.web_sources) - searched):
        unsaid = f"note: no row of sources.{name} says what was asked for, and"
        if needed:
            key = f"select.rule is '{rule}'" if rule in ("agree", "query") else "select.label is 'query'"
            say(
                f"{unsaid} {key}, so none of them will be kept; map a column to `label`, or set select.rule and "
                "select.label to teacher"
            )
        elif evidence and _is_table(recipe, name):
            say(
                f"{unsaid} select.query_evidence then has the teacher's word alone; if a column of its list says it, "
                "map that one to `label`"
            )


def _is_table(recipe: Recipe, name: str) -> bool:
    """Whether a source is a list whose columns have names."""
    return recipe.sources[name].layout != "collected" and source_place(recipe, name)[1] in ("table", "json")


def _need_samples(splits: Counter[str], split: str, key: str) -> None:
    if not splits[split]:
        raise UserError(
            f"{key}: no target sample is in the split '{split}'; give a target source `{split}:` conditions"
        )


def _check_curation(recipe: Recipe, workspace: Workspace, classes: Sequence[str] | None, problems: _Problems) -> None:
    if recipe.dedupe.against_test and workspace.record("dedupe") is None:
        with problems.of("dedupe"):
            Trunk(recipe, None)
    _check_foreign(recipe, classes, problems)
    with problems.of("select"):
        if classes is not None:
            human_decisions(recipe, classes)
        elif recipe.select.overrides and not recipe.resolve(recipe.select.overrides).is_file():
            raise UserError(f"select.overrides: {recipe.resolve(recipe.select.overrides)}: no such file")


def _check_foreign(recipe: Recipe, classes: Sequence[str] | None, problems: _Problems) -> None:
    for name in units_by_teacher(recipe):
        if name in recipe.foreign_teachers:
            given = recipe.foreign_teachers[name]
            with problems.of(f"foreign_teachers.{name}"):
                foreign_teacher(recipe, name, sorted(given.map) if classes is None else classes)
            with problems.of(f"foreign_teachers.{name}.device"):
                pick_device(given.device)


def _check_trainings(recipe: Recipe, workspace: Workspace, problems: _Problems) -> None:
    """Checks every training's settings, and every network once; those of a finished training need no first weights."""
    checked: set[str] = set()

    def check(key: str, training: Training, runs: Sequence[str]) -> None:
        with problems.of(f"{key}.device"):
            pick_device(training.device)
        with problems.of(f"{key}.camera"):
            if training.camera.fitted:
                given = recipe.resolve(training.camera.fitted)
                load_camera(given, training.input.stride, training.input.fps)
        started = all(workspace.record(f"train-{run}") for run in runs)
        what = f"{started} {training.network!r} {training.input!r}"
        if what not in checked:
            checked.add(what)
            with problems.of(f"{key}.network"):
                _check_network(recipe, key, training, started)

    for name in used_teachers(recipe) if recipe.web_sources else []:
        check(f"teachers.{name}", recipe.teachers[name], [f"teacher-{name}"])
    for name, run in recipe.planned_runs().items():
        training = recipe.student_of(name)
        check(_key(recipe, name), training, [f"{name}-{seed}" for seed in recipe.seeds])
        with problems.of("test.size"):
            crop_size(training.input, recipe.test)
        with problems.of(f"runs.{name}"):
            web = [source for source in run.sources if source in recipe.web_sources]
            if training.input.modality == "flow" and web:
                raise UserError(f"`modality: flow` trains on target sources alone; leave out {', '.join(web)}")


def _check_network(recipe: Recipe, key: str, training: Training, started: bool) -> None:
    settings, init, given = training.network, training.network.init, training.input
    with torch.device("meta"):  # no memory is spent on it
        network = create(settings.name, 2, 2 if given.modality == "flow" else 3, settings.dropout, **settings.options)
    need = _WEIGHT_BYTES * sum(parameter.numel() for parameter in network.parameters())
    if need > psutil.virtual_memory().total:
        raise UserError(f"its weights alone take {need / _GIB:.0f} GiB of memory, more than there is")
    if given.frames < network.min_frames or given.size < network.min_size:
        raise UserError(
            f"{settings.name} takes clips of at least {network.min_frames} frames and {network.min_size} pixels a "
            f"side; raise {key}.input.frames or {key}.input.size"
        )
    if started:
        return
    if init.imagenet:
        file = None if init.imagenet == "package" else recipe.resolve(init.imagenet)
        found = first_weights(network, "imagenet", file)
    elif init.checkpoint:
        found = first_weights(network, "checkpoint", recipe.resolve(init.checkpoint))
    else:
        return
    start = init.imagenet or init.checkpoint
    if found and found.options is not None:
        with torch.device("meta"):
            options = {key: value for key, value in found.options.items() if key in options_of(settings.name)}
            theirs = create(settings.name, 2, **{**options, "in_channels": network.in_channels})
        if [norm.eps for norm in norms(network)] != [norm.eps for norm in norms(theirs)]:
            told = ", ".join(f"{name}: {value}" for name, value in options.items())
            say(
                f"note: {key}.network has other norms than the {settings.name} whose weights are in {start}; "
                f"that had options: {{{told}}}"
            )
    if found and given.modality == "rgb" and not _alike((*given.mean, *given.std), (*found.mean, *found.std)):
        say(
            f"note: {key}.input has mean {_listed(given.mean)} and std {_listed(given.std)}, but the weights in "
            f"{start} were trained with {_listed(found.mean)} and {_listed(found.std)}"
        )


def _alike(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two normalisations are the same but for rounding; one of another number of channels is not compared."""
    return len(a) != len(b) or all(abs(one - other) < _ROUNDED for one, other in zip(a, b, strict=True))


def _listed(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"


def _key(recipe: Recipe, run: str) -> str:
    """Where the network of a run's student stands in the recipe."""
    return "student" if recipe.student_of(run).network == recipe.student.network else f"runs.{run}.set"
