"""The recipe: everything that decides a result, in one typed file."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from omnisource.errors import UserError
from omnisource.recipe.base import Section, Seed
from omnisource.recipe.collect import Collect
from omnisource.recipe.curation import UNITS, Dedupe, ForeignTeacher, Prepare, Probe, Score, Select
from omnisource.recipe.flow import Flow
from omnisource.recipe.sources import Source
from omnisource.recipe.testing import Run, Test, Truth
from omnisource.recipe.training import Training

TARGET_ONLY = "target-only"
ALL = "all"
_NAME = re.compile(r"[\w+][\w.+ -]{0,80}")  # of what gets a folder or a file in the workspace: no way out of it


class Recipe(Section):
    """A whole OmniSource experiment. Every section has defaults, so a short file is a valid one."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,80}$")]  # the workspace is `workspaces/NAME`
    data: Path = Path()  # where relative paths start; absolute after loading
    classes: list[str] | str | None = None  # names, or a file with one a line; null: the target's labels, sorted
    # A class without a labelled training clip is refused, or allowed: then it is learned from web data alone.
    unlabelled_classes: Literal["refuse", "allow"] = "refuse"
    seed: Seed = 0  # of teachers, camera and intervals
    sources: Annotated[dict[str, Source], Field(min_length=1)]
    collect: Collect = Collect()
    probe: Probe = Probe()
    prepare: Prepare = Prepare()
    dedupe: Dedupe = Dedupe()
    teachers: dict[str, Training] = {}  # trained on the target alone; `score` says what each looks at
    foreign_teachers: dict[str, ForeignTeacher] = {}  # trained elsewhere; `score` may name them like teachers
    score: Score = Score()
    select: Select = Select()
    flow: Flow = Flow()  # for networks with `input.modality: flow`
    student: Training  # what every run trains
    runs: dict[str, Run] = {}  # null: `target-only`, one `+SOURCE` per web source, and `all`
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)] = [0]  # each run trains a student by each
    test: Test = Test()
    truth: Truth | None = None
    _students: str | None = PrivateAttr(None)  # the run whose students are the teachers here

    @field_validator("sources")
    @classmethod
    def _a_target(cls, sources: dict[str, Source]) -> dict[str, Source]:
        if not any(source.role == "target" for source in sources.values()):
            raise ValueError("no source has `role: target`")
        return sources

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is given twice; the same training twice tells nothing new")
        return seeds

    @model_validator(mode="after")
    def _names_exist(self) -> "Recipe":
        for section in ("sources", "teachers", "foreign_teachers", "runs"):
            for name in getattr(self, section):
                if not _NAME.fullmatch(name):
                    raise ValueError(f"{section}: '{name}' is no name; use letters, digits, spaces and . _ + -")
        names = [*self.teachers, *self.foreign_teachers]
        for name in sorted(set(self.teachers) & set(self.foreign_teachers)):
            raise ValueError(f"'{name}' is a teacher and a foreign teacher; give one of them another name")
        for unit in UNITS:
            for teacher in getattr(self.score, unit):
                usual = getattr(self.score, unit) == Score.model_fields[unit].default
                # The usual names need only be there where there is such a unit, which `units_by_teacher` sees to.
                if teacher not in names and not usual:
                    raise ValueError(f"score.{unit} names the teacher '{teacher}', teachers are: {', '.join(names)}")
                if self.web_sources and teacher in self.teachers and self.teachers[teacher].input.modality == "flow":
                    raise ValueError(
                        f"score.{unit}: teacher '{teacher}' sees optical flow, which web data have none of; set "
                        f"teachers.{teacher}.input.modality to rgb"
                    )
                if self.select.calibrate.split == "train" and teacher in self.teachers:
                    raise ValueError(f"select.calibrate.split: teacher '{teacher}' is trained on that split; write val")
        several = any(len(set(getattr(self.score, unit))) > 1 for unit in UNITS)
        students = len(set(self.seeds)) > 1 and any(run.teacher is not None for run in self.runs.values())
        if self.select.unanimous and not several and not students:
            raise ValueError(
                "select.unanimous: no unit has several teachers; name two, as in score.clip: [image, video]"
            )
        for name, run in self.runs.items():
            for source in run.sources:
                if source not in self.sources:
                    raise ValueError(f"runs.{name} names the source '{source}', sources are: {', '.join(self.sources)}")
            if run.teacher is not None and self.select.calibrate.crossed:
                raise ValueError(
                    f"runs.{name}.teacher: students are not trained once more for select.calibrate.split: cross; "
                    "write val, or a number as temperature"
                )
            if run.teacher in self.runs and self.student_of(run.teacher).input.modality == "flow":
                raise ValueError(
                    f"runs.{name}.teacher: the students of '{run.teacher}' see optical flow, which web data have none "
                    "of; name a run of modality: rgb"
                )
            camera = run.set.get("camera")
            if "camera.pairs" in run.set or (isinstance(camera, dict) and "pairs" in camera):
                raise ValueError(
                    f"runs.{name}.set: camera.pairs is of the one camera that is fitted for all runs; set "
                    "student.camera.pairs, or name a camera of the run's own in camera.fitted"
                )
        earlier: list[str] = []
        for name, run in self.runs.items():
            if run.teacher is not None and run.teacher not in earlier:
                raise ValueError(f"runs.{name}.teacher is '{run.teacher}', but no run above it is called so")
            if run.teacher is not None and not set(run.sources) & set(self.web_sources):
                raise ValueError(f"runs.{name} has a teacher but no web source for it to score; add one to its sources")
            earlier.append(name)
            try:
                self.student_of(name)
            except UserError as error:
                raise ValueError(str(error)) from None
        for what, training in {
            "student": self.student,
            **{f"teachers.{n}": t for n, t in self.teachers.items()},
        }.items():
            named = {*training.batch.ratio, *training.batch.sizes, *training.resample, *training.loss_weight}
            for source in sorted(named - set(self.sources)):
                raise ValueError(f"{what} names the source '{source}', sources are: {', '.join(self.sources)}")
        for source in sorted(set(self.select.per_source) - set(self.web_sources)):
            raise ValueError(f"select.per_source names '{source}', web sources are: {', '.join(self.web_sources)}")
        return self

    @property
    def target_sources(self) -> list[str]:
        """Names of the target sources, in the file's order."""
        return [name for name, source in self.sources.items() if source.role == "target"]

    @property
    def web_sources(self) -> list[str]:
        """Names of the web sources, in the file's order."""
        return [name for name, source in self.sources.items() if source.role == "web"]

    def planned_runs(self) -> dict[str, Run]:
        """The students to train: the recipe's `runs`, or target-only, one per web source, and all."""
        if self.runs:
            return self.runs
        target = self.target_sources
        plan = {TARGET_ONLY: Run(sources=target)}
        if len(self.web_sources) > 1:
            plan |= {f"+{web}": Run(sources=[*target, web]) for web in self.web_sources}
        if self.web_sources:
            plan[ALL] = Run(sources=[*target, *self.web_sources])
        return plan

    def student_of(self, run: str) -> Training:
        """The student's training with the run's own settings."""
        from omnisource.recipe.load import check, set_key

        changed: dict[str, Any] = self.student.model_dump(mode="json")
        for key, value in self.planned_runs()[run].set.items():
            set_key(changed, key, value, f"runs.{run}.set")
        return check(Training, changed, {}, f"runs.{run}.set")

    def seen_by(self, run: str) -> "Recipe":
        """The recipe as a run sees it: itself, or with another run's students as its teachers (`runs.NAME.teacher`).

        These students score every kind of unit, their scores and selection have names of their own, and the runs are
        those that share them.
        """
        teacher = self.planned_runs()[run].teacher
        if teacher is None:
            return self
        students = {f"{teacher}-{seed}": self.student_of(teacher) for seed in self.seeds}
        seen = self.model_copy(
            update={
                "teachers": students,
                "foreign_teachers": {},
                "score": self.score.model_copy(update={unit: list(students) for unit in UNITS}),
                "select": self.select.model_copy(update={"name": f"{self.select.name}.{teacher}"}),
                "runs": {name: one for name, one in self.runs.items() if one.teacher == teacher},
            }
        )
        seen._students = teacher
        return seen

    def rounds(self) -> dict[str | None, list[str]]:
        """Run whose students are the teachers (None: the recipe's teachers) -> runs that they teach, in order."""
        found: dict[str | None, list[str]] = {None: []}
        for name, planned in self.planned_runs().items():
            found.setdefault(planned.teacher, []).append(name)
        return found

    @property
    def students(self) -> str | None:
        """The run whose students are the teachers here (`seen_by`), or None."""
        return self._students

    def training_of(self, teacher: str, without: int | None = None) -> str:
        """The name of the training behind a teacher, or of the one that left out a part of the target."""
        name = f"teacher-{teacher}" if self._students is None else teacher
        return name if without is None else f"{name}~{without}"

    def scored_by(self, name: str) -> str:
        """The name of a stage or table about scores; those by students stand beside those by teachers."""
        return name if self._students is None else f"{name}-{self._students}"

    def resolve(self, path: str) -> Path:
        """A path of the recipe as an absolute one; UserError for a name that no file can have or that is barred."""
        try:
            found = (self.data / Path(path).expanduser()).resolve()
            found.exists()
        except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a loop of links, no such user
            raise UserError(f"recipe {self.name}: {path[:80]!r} cannot be a path ({error})") from None
        return found

    def class_list(self) -> list[str] | None:
        """The class names if the recipe gives them, else None (then ingest derives them from the target's labels)."""
        return self.read_names(self.classes, "classes") if isinstance(self.classes, str) else self.classes

    def read_names(self, path: str, key: str) -> list[str]:
        """The class names in a file that the recipe's key `key` names, one a line."""
        return read_names(self.resolve(path), f"the recipe's `{key}` file")


def read_names(file: Path, what: str) -> list[str]:
    """The class names in a file, one a line; `what` the file is, for messages. Raises UserError: it can't be read."""
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: {what} cannot be read ({error}); one class name a line") from None
    if not any(names):
        raise UserError(f"{file}: {what} names no class; write one a line")
    return [name for name in names if name]
