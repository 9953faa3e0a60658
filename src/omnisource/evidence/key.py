"""What a cell is known by: everything that decides its figures, and nothing else, so that it is measured once."""

from typing import Any

from omnisource.recipe import Recipe
from omnisource.recipe.base import Section
from omnisource.workspace import content_of, fingerprint

# Raise it where a default, or what a setting does, changes: what was measured before is then measured anew.
_FORM = 1
_FILES = ("imagenet", "checkpoint", "fitted", "file", "init", "weights")  # fields that may name a file of weights
_BUILT_IN = ("package", "imagenet")  # what else may stand in them


def differing(section: Section) -> dict[str, Any]:
    """What a section says beyond the defaults, JSON-able: a setting that is added to it, unused, changes nothing."""
    return section.model_dump(mode="json", exclude_defaults=True)


def cell_key(recipe: Recipe, seed: int, again: bool, data: str | None = None) -> str:
    """The key of a cell. Files of weights count by their content: another file may take the name.

    Args:
        recipe: of the cell's variant.
        again: whether the student teaches another one, which is tested.
        data: what is known of the files, where they may change.

    Raises:
        UserError: a file that the recipe names can't be read.
    """
    settings = differing(recipe)
    trainings = {"student": settings["student"]}
    trainings |= {f"teachers.{name}": teacher for name, teacher in settings.get("teachers", {}).items()}
    sections = {"dedupe": settings.get("dedupe", {}), "flow": settings.get("flow", {})}
    for place, training in trainings.items():
        sections[f"{place}.network.init"] = training["network"].get("init", {})
        sections[f"{place}.camera"] = training.get("camera", {})
    for name, foreign in settings.get("foreign_teachers", {}).items():
        sections[f"foreign_teachers.{name}"] = foreign
    for place, section in sections.items():
        for field in _FILES:
            if field in section and section[field] not in _BUILT_IN:
                section[field] = content_of(recipe.resolve(section[field]), f"{place}.{field}")
    more = ({"again": True} if again else {}) | ({"data": data} if data is not None else {})
    return fingerprint({"form": _FORM, "recipe": settings, "seed": seed} | more)
