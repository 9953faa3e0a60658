"""What a list says of one sample, checked: texts, numbers, splits, seconds. `where` is the file and the place in it."""

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from omnisource.errors import UserError

SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "validate": "val", "valid": "val"}
SPLITS |= {"test": "test", "testing": "test"}
NOT_UTF8 = "not UTF-8 text; save it as UTF-8"
_MOST_SHOWN = 80  # characters of a value in a message
_MOST_S = 1e7  # no video is a hundred days long: a larger number is no time in seconds
_MOST_WHOLE = 2**31  # of a table's whole numbers


def text_of(value: object, where: str, name: str) -> str | None:
    """A text, or a number written as one; None for nothing or an empty text.

    Raises:
        UserError: true, NaN, a list, an object, bytes, a text that no table can hold.
    """
    if value is None or value == "":
        return None
    check_text(value, where, name)
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where}: {name} {shown(value)} is not a text; write it in quotes")
    return str(value)


def check_text(value: object, where: str, name: str) -> None:
    """Raises UserError for a text with halves of characters, as bytes that are no UTF-8, or JSON, can make them."""
    if isinstance(value, str) and not is_text(value):
        raise UserError(f"{where}: {name} {shown(value)} is {NOT_UTF8}")


def is_text(value: str) -> bool:
    """Whether a text has no halves of characters."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def split_of(value: str) -> str:
    """One of our splits by what the field calls them; UserError for anything else."""
    if value.lower() not in SPLITS:
        raise UserError(f"split {shown(value)} is none of train, val, test; map it with `test:` and `val:` conditions")
    return SPLITS[value.lower()]


def whole_of(value: object, where: str, name: str) -> int | None:
    """A whole number, also one written as 1.0 (as tables with gaps write them); UserError for anything else."""
    number = number_of(value, where, name)
    if number is not None and not (number.is_integer() and abs(number) < _MOST_WHOLE):
        raise UserError(f"{where}: {name} {shown(value)} is not a whole number below {_MOST_WHOLE}")
    return None if number is None else int(number)


def number_of(value: object, where: str, name: str) -> float | None:
    """A finite number, or a text that is one; UserError for anything else."""
    if value is None:
        return None
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {name} {shown(value)} is not a number")
    return number


def piece_of(start: object, end: object, where: str) -> tuple[float | None, float | None]:
    """The seconds at which a piece of a file starts and ends; UserError for one that no file can have."""
    start_s, end_s = number_of(start, where, "start"), number_of(end, where, "end")
    for name, seconds in (("starts", start_s), ("ends", end_s)):
        if seconds is not None and not 0 <= seconds <= _MOST_S:
            raise UserError(f"{where}: {name} at {seconds:g} s; a time is in seconds from the beginning of its file")
    if end_s is not None and (start_s or 0.0) >= end_s:
        raise UserError(f"{where}: ends at {end_s:g} s, but starts at {start_s or 0.0:g} s")
    return start_s, end_s


def shown(value: Any) -> str:
    """A value as a message may hold it: short, and on one line."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "of thousands of digits"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def plain_name(name: str) -> str:
    """A class name without what spelling forgives: case, spaces, underscores and dashes."""
    return re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFC", name)).strip().lower()


def by_plain_name(classes: Sequence[str]) -> dict[str, list[str]]:
    """The classes by their `plain_name`; several under one differ in nothing else."""
    found: dict[str, list[str]] = {}
    for name in classes:
        found.setdefault(plain_name(name), []).append(name)
    return found
