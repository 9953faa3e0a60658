"""Writes docs/recipe.md, the reference of every recipe key, from the typed models and the comments beside them.

python docs/make_recipe_reference.py          write it
python docs/make_recipe_reference.py --check  exit with 1 when it is not up to date
"""

import ast
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, get_args, get_origin

from omnisource.recipe import base, collect, curation, flow, recipe, sources, testing, training
from omnisource.recipe.base import Section

_ENDLESS = 10**9  # a bound that nobody meets is not worth showing
HEAD = """# Recipe reference

Every key of a recipe, its type and its default; written from the code by `docs/make_recipe_reference.py`.
Any key can be set for one run: `--set student.optimiser.lr=0.02`. Unknown keys and wrong values are refused
with the file, the line and the nearest valid name. Relative paths start at `data`.
"""


def main() -> int:
    text = HEAD + "".join(_module(module) for module in (recipe, sources, collect, curation, flow, training, testing))
    path = Path(__file__).with_name("recipe.md")
    if "--check" in sys.argv:
        return int(not path.exists() or path.read_text() != text)
    path.write_text(text)
    return 0


def _module(module: ModuleType) -> str:
    lines = inspect.getsource(module).splitlines()
    tree = ast.parse("\n".join(lines))
    return "".join(
        _section(node, lines)
        for node in tree.body
        if isinstance(node, ast.ClassDef) and issubclass(getattr(module, node.name), Section)
    )


def _section(node: ast.ClassDef, lines: list[str]) -> str:
    fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
    rows = [_row(field, lines) for field in fields if not ast.unparse(field.target).startswith("_")]
    about = " ".join((ast.get_docstring(node) or "").split())
    return f"\n## {node.name}\n\n{about}\n\n| key | type | default | meaning |\n|---|---|---|---|\n" + "".join(rows)


def _row(field: ast.AnnAssign, lines: list[str]) -> str:
    above = []
    line = field.lineno - 2
    while lines[line].strip().startswith("#"):
        above.insert(0, lines[line].strip().removeprefix("#").strip())
        line -= 1
    beside = lines[(field.end_lineno or field.lineno) - 1].partition("  # ")[2].strip()
    default = "required" if field.value is None else f"`{ast.unparse(field.value)}`"
    kind = _kind(field.annotation).replace("|", "\\|")
    meaning = " ".join([*above, beside]).strip().replace("|", "\\|")
    return f"| `{ast.unparse(field.target)}` | `{kind}` | {default} | {meaning} |\n"


def _kind(node: ast.expr) -> str:
    """A type as written, but with a bound read as a bound: `Annotated[float, Field(gt=0)]` is `float > 0`."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    match node:
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, ast.Call(keywords=bounds)])):
            shown = [f"{signs[b.arg]} {ast.unparse(b.value)}" for b in bounds if b.arg in signs]
            return " ".join([_kind(inner), ", ".join(shown)]).strip()
        case ast.BinOp(left=left, right=right):
            return f"{_kind(left)} | {_kind(right)}"
        case ast.Name(id=name) if get_origin(named := getattr(base, name, None)) is Annotated:
            inner, info = get_args(named)
            bounds = {k: getattr(m, k) for m in info.metadata for k in signs if hasattr(m, k)}
            shown = {key: f"{bound:,.10g}" for key, bound in bounds.items() if bound < _ENDLESS}
            if shown.keys() == {"ge", "le"}:
                return f"{inner.__name__} {shown['ge']} to {shown['le']}"
            return f"{inner.__name__} {', '.join(f'{signs[key]} {bound}' for key, bound in shown.items())}"
        case ast.Subscript(value=value, slice=ast.Tuple(elts=inner)) if ast.unparse(value) in ("dict", "tuple"):
            return f"{ast.unparse(value)}[{', '.join(map(_kind, inner))}]"
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return f"list[{_kind(inner)}]"
    return ast.unparse(node)


if __name__ == "__main__":
    sys.exit(main())
