"""Anybody's recipe as a track: the same questions, asked of one's own data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omnisource.errors import UserError
from omnisource.evidence.cells import recipe_of
from omnisource.evidence.key import differing
from omnisource.evidence.tracks import Sections, Track
from omnisource.evidence.variants import Variant
from omnisource.ingest import COLLECTED, column_values
from omnisource.ingest.conditions import same
from omnisource.progress import say
from omnisource.recipe import Range, Recipe, Source
from omnisource.recipe.sources import Scalar, Where
from omnisource.workspace import Workspace

_FOLD = "fold"


def own_track(recipe: Recipe, workspace: Workspace) -> Track:
    """A recipe as a track. Its folds are the splits that its data allow; the first is the recipe's own.

    With `test_share` every share of the data is tested on once; where conditions name a value of a column `fold`, as
    in `test: {fold: 0}`, every value takes its turn. Else there is one split.

    Args:
        recipe: with its own settings. Without web sources it is the target alone that is looked at.
        workspace: of the recipe, which holds what was collected.

    Raises:
        UserError: a student that sees no web source; nothing was collected yet; a list that cannot be read.
    """
    if recipe.student.input.modality == "flow":
        raise UserError(
            f"recipe {recipe.name}: a student of optical flow trains on the target alone, so there is no effect to "
            "measure; set student.input.modality to rgb"
        )
    collected = None
    if any(source.layout == "collected" for source in recipe.sources.values()):
        collected = workspace.table(COLLECTED)
        if not collected.exists():
            raise UserError(f"{collected}: nothing was collected yet; run `omnisource collect` first")
    splits = _splits(recipe)

    def sections(media: Path, place: Path, fold: int) -> Sections:
        # Runs and seeds are the cells' own: none of them is measured anew where the recipe names other ones.
        values = recipe.model_dump(mode="json", exclude={"runs", "seeds"})
        values["sources"] |= {name: source.model_dump(mode="json") for name, source in splits[fold].items()}
        return values

    return Track(
        name=recipe.name,
        about="what each source and each setting brings",
        folder="",
        folds=tuple(range(len(splits))),
        sections=sections,
        collected=collected,
        lasting=False,
    )


def own_variants(base: Recipe, variants: Sequence[Variant]) -> list[Variant]:
    """Those variants that the recipe's other settings allow, and of those that are the same training the first."""
    found, known, same_as = list[Variant](), list[Mapping[str, Any]](), dict[str, str]()
    for variant in variants:
        try:
            settings = differing(recipe_of(base, variant)) | {"again": variant.again}
        except UserError as error:
            say(f"left out: {error}")
            continue
        if not variant.sources:  # nobody scores, and no selection counts
            settings = {key: value for key, value in settings.items() if key not in ("teachers", "score", "select")}
        if settings in known:
            same_as[variant.name] = found[known.index(settings)].name
            continue
        known.append(settings)
        found.append(variant)
    return [replace(variant, against=same_as.get(variant.against, variant.against)) for variant in found]


def _splits(recipe: Recipe) -> list[dict[str, Source]]:
    """The sources under each split, the recipe's own first; web sources may be of other folds than what is tested."""
    own = recipe.sources
    parts = min((source.test_parts for source in own.values() if source.test_share), default=0)
    if parts > 1:
        return [{name: _part(source, turn, parts) for name, source in own.items()} for turn in range(parts)]
    if not any(_column(source, conditions) for source in own.values() for conditions in _conditions(source)):
        return [own]
    values = sorted({value for name in own for value in _values(recipe, name)}, key=_order)
    try:
        return [{name: _turned(source, values, turn) for name, source in own.items()} for turn in range(len(values))]
    except LookupError:  # a range of folds, or one that no row has
        return [own]


def _part(source: Source, turn: int, parts: int) -> Source:
    if not source.test_share:
        return source
    return source.model_copy(update={"test_part": (source.test_part + turn) % parts})


def _conditions(source: Source) -> Sequence[Where]:
    return source.where, source.exclude, source.test, source.val


def _column(source: Source, conditions: Where) -> str | None:
    """The name by which conditions speak of the fold, if they do."""
    return next((name for name in (_FOLD, source.columns.get(_FOLD)) if name in conditions), None)


def _values(recipe: Recipe, name: str) -> set[Scalar]:
    """What stands in the column by which the conditions of a source speak of the fold."""
    source = recipe.sources[name]
    if source.layout == "collected":
        return set()
    columns = {_column(source, conditions) for conditions in _conditions(source)} - {None}
    found = {value for column in columns for value in column_values(recipe, name, str(column))}
    return {value for value in found if isinstance(value, Scalar)}


def _turned(source: Source, values: Sequence[Scalar], turn: int) -> Source:
    """The source with every fold that its conditions name replaced by the one that comes so many later."""
    changed = dict[str, Where]()
    for field, conditions in zip(("where", "exclude", "test", "val"), _conditions(source), strict=True):
        column = _column(source, conditions)
        if column is not None:
            named = conditions[column]
            if isinstance(named, Range):
                raise LookupError
            later = [_later(one, values, turn) for one in (named if isinstance(named, list) else [named])]
            changed[field] = {**conditions, column: later if isinstance(named, list) else later[0]}
    return source.model_copy(update=changed)


def _later(wanted: Scalar, values: Sequence[Scalar], turn: int) -> Scalar:
    """Raises LookupError: no row has this value."""
    place = next((place for place, value in enumerate(values) if same(value, wanted)), None)
    if place is None:
        raise LookupError
    return values[(place + turn) % len(values)]


def _order(value: Scalar) -> tuple[bool, float, str]:
    """Numbers by size, whether a list holds them as numbers or as text; then words."""
    try:
        return False, float(value), ""
    except ValueError:
        return True, 0.0, str(value)
