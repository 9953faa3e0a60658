"""Pages of HTML: one file each, that needs no other."""

from functools import cache

from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup

from omnisource.progress import printable


def page_template(name: str) -> Template:
    """A page's template, by its path in the package. Whatever is put into it is escaped, but for `Markup`."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    return Environment(autoescape=True, finalize=_shown, loader=PackageLoader("omnisource", "."))


def _shown(value: object) -> object:
    """What a page shows of a value: text without characters that do something instead of being seen."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
