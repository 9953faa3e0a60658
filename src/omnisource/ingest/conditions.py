"""`where`, `exclude`, `test`, `val`: which rows of a list satisfy the conditions of a source."""

import math
from collections.abc import Mapping
from typing import Any

from omnisource.errors import UserError
from omnisource.ingest.values import shown
from omnisource.recipe import Range, Source


def wanted(columns: Mapping[str, Any], source: Source, name: str) -> bool:
    """Whether a source called `name` uses a row, by `where` and `exclude`."""
    if source.where and not matches(columns, source.where, name):
        return False
    return not (source.exclude and matches(columns, source.exclude, name))


def matches(columns: Mapping[str, Any], where: Mapping[str, Any], name: str) -> bool:
    """Whether a list row satisfies all conditions of `where`, `exclude`, `test` or `val`."""
    for column, condition in where.items():
        if column not in columns:
            raise UserError(
                f"sources.{name}: no column '{column}' to compare; the list has: {', '.join(sorted(columns))}"
            )
        value = columns[column]
        if value is None:  # an empty cell satisfies nothing
            return False
        if isinstance(condition, Range):
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError):
                number = math.nan
            if math.isnan(number):
                raise UserError(f"sources.{name}: column '{column}' holds {shown(value)}, which is not a number")
            if condition.above is not None and number < condition.above:
                return False
            if condition.below is not None and number >= condition.below:
                return False
        elif not any(same(value, one) for one in (condition if isinstance(condition, list) else [condition])):
            return False
    return True


def same(value: Any, wanted: bool | int | float | str) -> bool:
    """Whether a list's value is what the recipe says: a text list knows no types, and YAML has its own."""
    if isinstance(wanted, bool) or isinstance(value, bool):
        return str(value).lower() == str(wanted).lower()
    if isinstance(wanted, int | float):
        try:
            return bool(float(value) == wanted)
        except (TypeError, ValueError, OverflowError):
            return False
    return str(value) == wanted
