"""`where`, `exclude`, `test`, `val`: which rows of a list satisfy the conditions of a source."""

from collections.abc import Mapping
from typing import Any

from omnisource.errors import UserError
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
        if isinstance(condition, Range):
            try:
                number = float(value)
            except ValueError:
                raise UserError(f"sources.{name}: column '{column}' holds {value!r}, which is not a number") from None
            if condition.above is not None and number < condition.above:
                return False
            if condition.below is not None and number >= condition.below:
                return False
        elif str(value) not in {
            str(allowed) for allowed in (condition if isinstance(condition, list) else [condition])
        }:
            return False
    return True
