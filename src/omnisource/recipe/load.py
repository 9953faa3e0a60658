"""Reading a recipe: YAML in, typed recipe out, errors with file, line and the nearest valid name."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from omnisource.errors import UserError
from omnisource.recipe.base import Section
from omnisource.recipe.recipe import Recipe

_MAX_BYTES = 1_000_000
_MAX_DEPTH = 40
_MOST_SHOWN = 160  # characters of a key or a value in a message
Location = tuple[str | int, ...]
M = TypeVar("M", bound=Section)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: YAML file. Relative paths in it start at its `data` folder, and `data` itself at the recipe's folder
            (when given by an override: at the current folder).
        overrides: `dotted.key=value` strings; the value is YAML.

    Raises:
        UserError: one line naming the file, the line, the key and the cure.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than {_MAX_BYTES} bytes, so not a recipe")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe; `omnisource init` writes one from your folders") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not a recipe; do you mean {path / 'recipe.yaml'}?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    values, lines = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}:1: a recipe is a mapping of keys to values, this is a {type(values).__name__}")
    base = path.parent / _folder(values.get("data") or "", str(path))
    for override in overrides:
        key, separator, value = override.partition("=")
        where = f"--set {_cut(override)}"
        if not separator or not key:
            raise UserError(f"{where}: write it as key=value, for instance --set student.epochs=5")
        parsed, _ = parse_yaml(value, where)
        if key == "data":
            base = _folder(parsed, where)
        set_key(values, key, parsed, where)
        place = tuple(key.split("."))
        lines = {at: line for at, line in lines.items() if at[: len(place)] != place}
        lines[place] = where
    try:
        values["data"] = str(base.resolve())
    except (OSError, ValueError) as error:  # a NUL in it
        raise UserError(f"{path}: 'data': {_shown(str(base))} is no folder ({error})") from None
    return check(Recipe, values, lines, str(path))


def _folder(given: object, where: str) -> Path:
    """The `data` folder as it is given, or where a relative one starts."""
    try:
        if not isinstance(given, str):
            raise ValueError("not a text")
        return Path(given).expanduser()
    except (RuntimeError, ValueError) as error:  # no such user
        raise UserError(f"{where}: 'data': {_shown(given)} is no folder ({error})") from None


def check(model: type[M], values: dict[str, Any], lines: dict[Location, str], where: str) -> M:
    """Builds `model` from `values`; a failure becomes one UserError that names the first wrong place."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors()
        # A failed union reports each of its members; unknown keys are the most telling, then the deepest place, then
        # that a number is too large or too small, then which words there are, and that one is no yes or no the least.
        first = min(
            problems,
            key=lambda problem: (
                problem["type"] != "extra_forbidden",
                -len(problem["loc"]),
                not problem["type"].startswith(("less_than", "greater_than")),
                problem["type"] != "literal_error",
                problem["type"].startswith("bool"),
            ),
        )
        whole = first["loc"]
        location = tuple(part for n, part in enumerate(whole) if not _is_tag(part) or whole[: n + 1] in lines)
        name = _cut(".".join(map(str, location)))
        place = _line(lines, location, where)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        if first["type"] == "extra_forbidden":
            raise UserError(f"{place}: unknown key '{name}'{_nearest(model, location)}{more}") from None
        if first["type"] == "missing":
            raise UserError(f"{place}: '{name}' is missing{more}") from None
        message = first["msg"].removeprefix("Value error, ")
        given = "" if isinstance(first["input"], dict | list | BaseModel) else f" (given: {_shown(first['input'])})"
        raise UserError(
            f"{place}: '{name}': {message[0].lower()}{message[1:]}{given}{more}" if name else f"{place}: {message}"
        ) from None


def set_key(values: dict[str, Any], key: str, value: object, where: str) -> None:
    """Sets a dotted key in nested dictionaries, making the ones that are missing or null."""
    *parents, last = key.split(".")
    at = values
    for parent in parents:
        if at.get(parent) is None:
            at[parent] = {}
        inner = at[parent]
        if not isinstance(inner, dict):
            raise UserError(f"{where}: '{parent}' is not a section")
        at = inner
    at[last] = value


def parse_yaml(text: str, where: str) -> tuple[Any, dict[Location, str]]:
    """Parses YAML without aliases (they can explode), and tells the line of every key."""
    lines: dict[Location, str] = {}
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise UserError(f"{where}:{line}: nested too deeply to be a recipe")
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{where}:{line}: YAML aliases (*name) are not allowed; write it out")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _note_lines(node, (), lines, where)
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{where}:{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def _note_lines(node: yaml.Node, at: Location, lines: dict[Location, str], where: str) -> None:
    lines.setdefault(at, f"{where}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = (*at, str(key.value))
            if name in lines:
                raise UserError(f"{where}:{key.start_mark.line + 1}: '{key.value}' is given twice")
            lines[name] = f"{where}:{key.start_mark.line + 1}"
            _note_lines(value, name, lines, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_lines(value, (*at, index), lines, where)


def _shown(value: object) -> str:
    """A value of the recipe as an error message may hold it."""
    try:
        return _cut(repr(value))
    except ValueError:  # a number of thousands of digits
        return "a very large number"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _line(lines: dict[Location, str], location: Location, where: str) -> str:
    for length in range(len(location), -1, -1):
        if location[:length] in lines:
            return lines[location[:length]]
    return where


def _is_tag(part: object) -> bool:
    # pydantic puts the member of a union into the location: a type's name, not a key of the file.
    return isinstance(part, str) and (
        part[:1].isupper() or "[" in part or part in {"bool", "int", "float", "str"} or part.startswith("constrained-")
    )


def _nearest(model: type[BaseModel], location: Location) -> str:
    at: type[BaseModel] | None = model
    for part in location[:-1]:
        if at is not None and part in at.model_fields:
            at = _section_of(at.model_fields[str(part)].annotation)
    names = list(at.model_fields) if at else []
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; valid here: {', '.join(names)}" if names else ""


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section_of(inner))), None)
