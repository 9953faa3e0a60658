"""Which searches a recipe asks for, and what they cost: the same list for a dry run and for the real one."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from omnisource.collect.candidate import Source
from omnisource.collect.queries import Query, Window, queries, tags, windows
from omnisource.collect.sources import LISTS
from omnisource.recipe.collect import Collect, CollectSource


@dataclass(frozen=True)
class Search:
    """One question: a query (None: everything that the source lists), in one time period."""

    query: Query | None
    window: Window | None

    @property
    def key(self) -> tuple[str, str, str]:
        """(query, class, period): what the state table knows it by."""
        text, label = (self.query.text, self.query.label) if self.query else ("", "")
        return text, label, str(self.window or "")


def class_queries(settings: Collect, source: CollectSource, classes: Sequence[str]) -> list[Query]:
    """What a source is asked for: queries of every class, or their tags."""
    if source.tags:
        return [Query(tag, label) for label in classes for tag in tags(label)]
    return [query for label in classes for query in queries(label, settings.templates, settings.variants)]


def searches(settings: Collect, source: CollectSource, opened: Source, classes: Sequence[str]) -> Iterator[Search]:
    """All searches of one source, in order: a pure function of the recipe, so that a killed run finds its place."""
    if source.name in LISTS:
        yield Search(None, None)
        return
    until = settings.until or datetime.now(UTC).date()
    periods = windows(settings.since, until, settings.slice if opened.windowed else "none")
    for query in class_queries(settings, source, classes):
        for period in periods:
            yield Search(query, period)


def expected_requests(source: CollectSource, opened: Source, count: int) -> int:
    """Search requests of `count` searches if each gives as much as it may."""
    if source.name in LISTS:
        return 0
    results = min(source.limit, opened.cap)
    return count * (math.ceil(results / opened.page_size) + opened.requests_per_result * results)
