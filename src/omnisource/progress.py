"""Progress bars: rich on a terminal, one plain line every few seconds elsewhere."""

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

T = TypeVar("T")
# Class names, file names and other people's words are printed as they are: a path may hold :x: or [red].
console = Console(stderr=True, highlight=False, emoji=False, markup=False)

_PLAIN_INTERVAL_S = 10.0
_QUIET = "OMNISOURCE_QUIET"
# What a terminal obeys instead of showing it, what turns the reading direction round, and halves of characters.
_UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def say(*parts: str | tuple[str, str]) -> None:
    """Prints one line, each part a text or (text, style); it is not wrapped, so that what it names can be copied."""
    shown = (printable(part) if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts)
    console.print(Text.assemble(*shown), soft_wrap=True)


def show(table: Table) -> None:
    """Prints a table; what is too wide for the terminal, or for the 80 columns of a pipe, is folded and never cut."""
    for column in table.columns:
        column.overflow = "fold"
    console.print(table)


def printable(text: str) -> str:
    """A text with an escape for each character that would do something to a terminal: names may hold any."""
    return _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def be_quiet() -> None:
    """Shows no bars in this process and its children: for workers whose parent shows one for all."""
    os.environ[_QUIET] = "1"


class Meter:
    """Counts finished items of one piece of work and shows them."""

    def __init__(self, what: str, total: int | None, bar: Progress | None) -> None:
        self.what, self.total, self.done = what, total, 0
        self._bar = bar
        self._task = bar.add_task(what, total=total, note="") if bar else None
        self._started = self._shown = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Marks `count` more items as done; `note` is shown behind the bar."""
        self.done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, note=printable(note))
            return
        now = time.monotonic()
        if now - self._shown >= _PLAIN_INTERVAL_S and not os.environ.get(_QUIET):
            self._shown = now
            rate = self.done / max(now - self._started, 1e-9)
            left = f", {(self.total - self.done) / rate:.0f} s left" if self.total and rate else ""
            of = f"/{self.total}" if self.total else ""
            print(
                printable(f"{self.what}: {self.done}{of} ({rate:.1f}/s{left}) {note}").rstrip(),
                file=sys.stderr,
                flush=True,
            )


class _Words(TextColumn):
    """Text in one line, shortened where the terminal is narrow."""

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


@contextmanager
def meter(what: str, total: int | None = None) -> Iterator[Meter]:
    """Opens a progress bar for work whose items finish one by one."""
    if not console.is_terminal or os.environ.get(_QUIET):
        yield Meter(what, total, None)
        return
    whole = Column(no_wrap=True)  # the counts and times stay when there is no room for the words
    bar_width = 30 if console.width >= 120 else 10 if console.width >= 60 else 0
    columns = (
        SpinnerColumn(table_column=whole),
        _Words("{task.description}", markup=False, table_column=Column()),
        *([BarColumn(bar_width, table_column=whole.copy())] if bar_width else []),
        MofNCompleteColumn(table_column=whole.copy()),
        TimeElapsedColumn(table_column=whole.copy()),
        TimeRemainingColumn(table_column=whole.copy()),
        _Words("{task.fields[note]}", markup=False, table_column=Column()),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Meter(what, total, bar)


def track(items: Iterable[T], total: int | None = None, what: str = "") -> Iterator[T]:
    """Yields `items` under a progress bar called `what`."""
    with meter(what, total) as bar:
        for item in items:
            yield item
            bar.advance()
