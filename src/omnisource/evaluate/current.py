"""Which of the results in a workspace are of a recipe as it is now."""

from collections.abc import Iterator

from omnisource.errors import UserError
from omnisource.evaluate.folds import predictions_name
from omnisource.evaluate.test import test_basis
from omnisource.recipe import Recipe
from omnisource.recipe.curation import UNITS
from omnisource.train import differences, student_basis, teacher_basis
from omnisource.workspace import Basis, Workspace


def left_out(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The tested trainings (`RUN-SEED`) whose results are not what the recipe would give now, each with the reason."""
    found = {}
    for run in recipe.planned_runs():
        for seed in recipe.seeds:
            name = f"{run}-{seed}"
            if not workspace.table(predictions_name(name, recipe.test.split)).exists():
                continue
            try:
                reason = _reason(recipe, workspace, run, seed)
            except UserError as error:  # a stage before it is gone, or a file that it began with
                reason = str(error)
            if reason:
                found[name] = reason
    return found


def _reason(recipe: Recipe, workspace: Workspace, run: str, seed: int) -> str | None:
    name = f"{run}-{seed}"
    known = [test_basis(name, recipe.student_of(run), recipe.test), student_basis(recipe, workspace, run, seed)]
    for basis in [*known, *_before(recipe.seen_by(run), workspace, run)]:
        record = workspace.record(basis.stage)
        if record is None:
            return f"the stage {basis.stage} left no record"
        recorded = {key: record.settings.get(key) for key in basis.settings}
        if changed := differences(recorded, basis.settings):
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            return f"{basis.stage} ran with other settings ({changed[0]}{more})"
        if basis in known and record.fingerprint != workspace.mark(basis.stage, basis.settings, basis.after):
            return f"a stage before {basis.stage} was done again since ({', '.join(basis.after)})"
    return None


def _before(recipe: Recipe, workspace: Workspace, run: str) -> Iterator[Basis]:
    """The stages that decided about the web data of a run, with those of their settings that stand in the recipe."""
    if not set(recipe.planned_runs()[run].sources) & set(recipe.web_sources):
        return
    yield Basis(recipe.select.stage, {"select": recipe.select.model_dump(mode="json")}, [])
    yield Basis(recipe.scored_by("score"), recipe.score.model_dump(mode="json", exclude={"batch", *UNITS}), [])
    yield Basis("dedupe", recipe.dedupe.model_dump(mode="json", exclude={"init"}), [])
    if recipe.students is None:
        scoring = {teacher for unit in UNITS for teacher in getattr(recipe.score, unit)}
        for teacher in sorted(scoring & set(recipe.teachers)):
            if workspace.record(f"train-teacher-{teacher}"):  # else nothing of its units was there to be scored
                yield teacher_basis(recipe, workspace, teacher)
