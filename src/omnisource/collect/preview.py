"""Before anything is asked: what a collection would ask (`--dry-run`), and whether a source answers (`--check`)."""

import asyncio
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from omnisource.collect.addresses import Refused
from omnisource.collect.candidate import Candidate
from omnisource.collect.fetch import Fetcher, FetchError
from omnisource.collect.keys import Keys
from omnisource.collect.plan import expected_requests, searches
from omnisource.collect.queries import Query
from omnisource.collect.sources import LISTS, open_source
from omnisource.collect.stage import Order
from omnisource.collect.web import Web
from omnisource.errors import UserError
from omnisource.recipe.collect import CollectSource

_CHECK_RESULTS = 3


@dataclass(frozen=True)
class PlannedSource:
    """What one source would be asked. `problem` says why it cannot be asked at all."""

    source: CollectSource
    queries: list[Query]
    searches: int = 0
    requests: int = 0
    most_results: int = 0
    problem: str | None = None


def preview(order: Order) -> list[PlannedSource]:
    """Queries, expected search requests and results of every source. Asks nothing of the network."""
    return asyncio.run(_preview(order))


async def _preview(order: Order) -> list[PlannedSource]:
    web = _web(order)
    planned = []
    for source in order.settings.sources:
        try:
            opened = open_source(source, web, order.resolve)
        except UserError as error:
            planned.append(PlannedSource(source, [], problem=str(error)))
            continue
        found = list(searches(order.settings, source, opened, order.classes))
        distinct = list(dict.fromkeys(search.query for search in found if search.query))
        results = 0 if source.name in LISTS else len(found) * min(source.limit, opened.cap)
        planned.append(
            PlannedSource(source, distinct, len(found), expected_requests(source, opened, len(found)), results)
        )
    await web.fetcher.aclose()
    return planned


def check_source(order: Order, source: CollectSource, words: Sequence[str]) -> tuple[list[Candidate], float]:
    """Asks one source for a few results; returns them and the seconds that it took. Downloads nothing.

    Raises:
        UserError: the source does not answer as its documentation says, with what it did instead.
    """
    return asyncio.run(_check(order, source, words))


async def _check(order: Order, source: CollectSource, words: Sequence[str]) -> tuple[list[Candidate], float]:
    web = _web(order)
    query = Query(" ".join(words), " ".join(words))
    started = time.monotonic()
    try:
        opened = open_source(source, web, order.resolve)
        asked = None if source.name in LISTS else query
        found = await asyncio.to_thread(
            lambda: list(itertools.islice(opened.search(asked, None, _CHECK_RESULTS), _CHECK_RESULTS))
        )
    except (FetchError, Refused, KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise UserError(f"source {source.label} does not answer as expected: {type(error).__name__} {error}") from None
    finally:
        await web.fetcher.aclose()
    if not found:
        raise UserError(f"source {source.label} found nothing for '{query.text}'; try other words with --query")
    return found, time.monotonic() - started


def _web(order: Order) -> Web:
    keys = Keys(order.resolve(order.settings.keys) if order.settings.keys else None)
    return Web(Fetcher(order.settings), asyncio.get_running_loop(), keys, threading.Event())
