"""`collect`: class names become media in the workspace and rows in its `collected` table.

Searching and downloading go on side by side: each source searches in a thread of its own and fills the state table,
from which the downloader works. Whatever stops the run, the same command goes on from there.
"""

import asyncio
import hashlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from omnisource.collect.addresses import Refused
from omnisource.collect.candidate import Candidate, Source
from omnisource.collect.download import Downloader, Taker
from omnisource.collect.fetch import Fetcher, FetchError
from omnisource.collect.keys import Keys
from omnisource.collect.licences import normalise
from omnisource.collect.plan import Search, searches
from omnisource.collect.progress import Progress, Standing, look
from omnisource.collect.shrink import shrink_fetched
from omnisource.collect.sources import LISTS, VideoTaker, open_source
from omnisource.collect.state import CollectState, UrlRow
from omnisource.collect.store import Store, StoreFull, copy_in
from omnisource.collect.web import Web
from omnisource.errors import UserError
from omnisource.progress import say
from omnisource.recipe import Recipe
from omnisource.recipe.collect import Collect, CollectSource
from omnisource.tables import SAMPLES, table_from_rows, write_table
from omnisource.workspace import StageRecord, Workspace

_SEARCH_BATCH = 100
_LIST_BATCH = 2000
_ROWS_AT_ONCE = 5000
_GIVE_UP_AFTER = 5  # failed searches of one source, one after the other
Resolve = Callable[[str], Path]


@dataclass(frozen=True)
class Order:
    """What to collect: the settings, the classes, where relative paths start, and which recipe source gets what."""

    settings: Collect
    classes: list[str]
    resolve: Resolve
    into: Mapping[str, str]  # format -> name of the recipe's source for it


def order_of(recipe: Recipe) -> Order:
    """The order that a recipe gives. Raises `UserError` if it names no class or no source."""
    classes = recipe.class_list()
    if classes is None:
        raise UserError(f"recipe {recipe.name}: collecting needs `classes` (a list, or a file with one name a line)")
    if not recipe.collect.sources:
        raise UserError(f"recipe {recipe.name}: `collect.sources` is empty, for instance: sources: [openverse]")
    taking = {name: source for name, source in recipe.sources.items() if source.layout == "collected"}
    for source in recipe.collect.sources:
        if source.into is not None and source.into not in taking:
            raise UserError(
                f"recipe {recipe.name}: collect source {source.label} goes into '{source.into}', which is no source "
                f"with `layout: collected`; those are: {', '.join(taking) or 'none'}"
            )
    into: dict[str, str] = {}
    for name, taker in taking.items():
        into.setdefault(taker.format, name)
    return Order(recipe.collect, classes, recipe.resolve, into)


def collect(recipe: Recipe, workspace: Workspace, *, retry_failed: bool = False, refresh: bool = False) -> StageRecord:
    """The stage: searches and downloads what the recipe's `collect:` section asks for.

    Args:
        retry_failed: try the URLs and searches again that failed.
        refresh: ask for every file that has come whether it changed.

    Raises:
        UserError: nothing to collect, a missing key, an unreadable list, another process in the workspace.
    """
    return collect_order(order_of(recipe), workspace, retry_failed=retry_failed, refresh=refresh)


def collect_order(
    order: Order, workspace: Workspace, *, retry_failed: bool = False, refresh: bool = False
) -> StageRecord:
    """As `collect`, for an order that comes from elsewhere."""
    output = workspace.table("collected")
    before = workspace.record("collect")
    if retry_failed or refresh or (before is not None and "stopped" in before.counts):
        output.unlink(missing_ok=True)  # so that the stage does not count as done

    def work(_: str) -> dict[str, Any]:
        with open_state(workspace) as state:
            if retry_failed:
                state.retry_failed()
            if refresh:
                state.refresh()
            stopped = asyncio.run(_Collection(order, workspace, state).run())
            table = sample_table(order, workspace, state)
            write_table(output, table)
            return _counts(state, table) | ({"stopped": stopped} if stopped else {})

    settings = {**order.settings.model_dump(mode="json"), "classes": order.classes, "into": dict(order.into)}
    return workspace.run_stage("collect", settings=settings, after=[], outputs=[output], work=work)


@contextmanager
def open_state(workspace: Workspace) -> Iterator[CollectState]:
    """The workspace's table of URLs, until the block ends.

    Raises:
        UserError: it is damaged, or the disk is full or fails, also while it is used.
    """
    path = workspace.root / "collect" / "state.sqlite"
    try:
        with closing(CollectState(path)) as state:
            yield state
    except sqlite3.OperationalError as error:  # of a full disk, no permission, another process's lock
        raise UserError(f"{path}: {error}; mend that (free some space?), the same command resumes") from error
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path}: damaged ({error}); delete it to search again") from error


def standing(workspace: Workspace) -> Standing:
    """How far the collection of a workspace is, by source and class; works beside the process that collects."""
    with open_state(workspace) as state:
        return look(state, classes=True)


class _Collection:
    """One run of the stage."""

    def __init__(self, order: Order, workspace: Workspace, state: CollectState) -> None:
        self._order, self._settings, self._state = order, order.settings, state
        self._keys = Keys(order.resolve(order.settings.keys) if order.settings.keys else None)
        self._store = Store(
            workspace.media_dir("web"), state.stored_bytes(), order.settings.quota_bytes, order.settings.min_free_bytes
        )
        self._allowed = allowed_licences(order.settings)
        self._stop = threading.Event()
        self._progress = Progress(state)

    async def run(self) -> str | None:
        """Searches and downloads; returns why it stopped early, or None."""
        fetcher = Fetcher(self._settings)
        loop = asyncio.get_running_loop()
        web = Web(fetcher, loop, self._keys, self._stop)
        opened = [(source, open_source(source, web, self._order.resolve)) for source in self._settings.sources]
        searching = [loop.run_in_executor(None, self._search, *pair) for pair in opened]
        downloading = threading.Event()
        downloading.set()
        shrinking = self._start_shrinking(loop, downloading)
        takers: dict[str, Taker] = {"yt-dlp": VideoTaker(fetcher, self._store, self._keys), "file": self._take_file}
        downloader = Downloader(fetcher, self._state, self._store, takers, self._progress.finished)
        stopped = full = None
        try:
            await downloader.run(lambda: not all(task.done() for task in searching))
            for task in searching:
                await task
        except StoreFull as error:
            stopped = str(error)
        finally:
            self._stop.set()
            downloading.clear()
            self._progress.close()
            await asyncio.gather(*searching, return_exceptions=True)
            if shrinking is not None:
                full = await shrinking
            await fetcher.aclose()
        if stopped := stopped or full:
            say(("stopped: ", "yellow"), f"{stopped}; what was found stays pending")
        return stopped

    def _start_shrinking(
        self, loop: asyncio.AbstractEventLoop, downloading: threading.Event
    ) -> "asyncio.Future[str | None] | None":
        if self._settings.shrink is None:
            self._state.keep_fetched()
            return None
        return loop.run_in_executor(None, shrink_fetched, self._state, self._store, self._settings.shrink, downloading)

    async def _take_file(self, row: UrlRow) -> Path:
        self._store.make_room(Path(row.url).stat().st_size)
        return await asyncio.to_thread(copy_in, Path(row.url), self._store.partial(row.url))

    # --- in a thread for each source ---------------------------------------------------------------------------------

    def _search(self, settings: CollectSource, source: Source) -> None:
        listing = settings.name in LISTS
        limit = source.cap if listing else settings.limit
        filters = repr((sorted(self._allowed), self._settings.max_clip_s, self._settings.max_untrimmed_s))
        failures = 0
        for search in searches(self._settings, settings, source, self._order.classes):
            key = (settings.label, *search.key)
            if self._stop.is_set():
                return
            if not listing and self._state.search_done(key, limit, filters):
                continue
            found, problem = self._answers(source, search, limit, _LIST_BATCH if listing else _SEARCH_BATCH)
            if self._stop.is_set() and problem:
                return
            self._state.record_search(key, found, limit, filters, problem)
            failures = failures + 1 if problem else 0
            if failures in (1, _GIVE_UP_AFTER):
                said = "given up after" if failures == _GIVE_UP_AFTER else "search failed:"
                say((f"{settings.label}: {said} {problem}", "yellow"))
            if failures == _GIVE_UP_AFTER:
                return

    def _answers(self, source: Source, search: Search, limit: int, at_once: int) -> tuple[int, str | None]:
        """Puts the answers of one search into the state table; returns their number and what went wrong, if so."""
        found, batch = 0, list[Candidate]()
        try:
            for candidate in source.search(search.query, search.window, limit):
                found += 1
                if self._wanted(candidate):
                    batch.append(candidate)
                if len(batch) >= at_once:
                    self._state.add(batch)
                    batch = []
            problem = None
        except (FetchError, Refused) as error:
            problem = str(error)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            problem = f"unexpected answer: {type(error).__name__} {error}"[:200]
        self._state.add(batch)
        return found, problem

    def _wanted(self, candidate: Candidate) -> bool:
        if self._allowed and candidate.licence not in self._allowed:
            return False
        longest = {"clip": self._settings.max_clip_s, "untrimmed": self._settings.max_untrimmed_s}
        return candidate.duration_s is None or candidate.duration_s <= longest.get(candidate.format, float("inf"))


def allowed_licences(settings: Collect) -> set[str]:
    """The licences that are kept; empty: all."""
    return {name for said in settings.licence if (name := normalise(said))}


def sample_table(order: Order, workspace: Workspace, state: CollectState) -> pa.Table:
    """A row for each collected file, sorted by id; the first search that found it names its class."""
    parts, after = [SAMPLES.empty_table()], 0
    while finds := state.first_finds(after, _ROWS_AT_ONCE):
        after = finds[-1]["id"]
        rows = (_sample_row(order, workspace.media_dir("web"), find) for find in finds)
        parts.append(table_from_rows(rows, SAMPLES))
    table = pa.concat_tables(parts)
    return table.take(pc.sort_indices(table, sort_keys=[("sample_id", "ascending")]))


def _sample_row(order: Order, media: Path, find: Mapping[str, Any]) -> dict[str, Any]:
    chosen = next((source.into for source in order.settings.sources if source.label == find["source"]), None)
    source = chosen or order.into.get(find["format"]) or f"web-{find['format']}"
    allowed = allowed_licences(order.settings)
    dropped = bool(allowed) and find["licence"] not in allowed  # collected before the filter was set
    return {
        "sample_id": hashlib.sha256(f"{source}\0{find['sha256']}".encode()).hexdigest()[:20],
        "source": source,
        "role": "web",
        "format": find["format"],
        "uri": str(media / find["path"]),
        "query_label": find["label"],
        "bytes": find["bytes"],
        "url": find["url"] if find["fetcher"] != "file" else None,
        "page_url": find["page_url"],
        "query": find["query"],
        "author": find["author"],
        "licence": find["licence"],
        "retrieved_at": datetime.fromtimestamp(find["retrieved_at"], UTC),
        "status": "dropped" if dropped else "ok",
        "reason": "licence" if dropped else None,
    }


def _counts(state: CollectState, table: pa.Table) -> dict[str, Any]:
    urls = state.counts()
    return {
        "files": table.num_rows,
        "urls_done": urls.get("done", 0),
        "urls_failed": urls.get("failed", 0),
        "urls_pending": urls.get("pending", 0) + urls.get("fetched", 0),
        "searches_failed": state.rows("SELECT COUNT(*) FROM searches WHERE state = 'failed'")[0][0],
        "not_shrunk": state.rows("SELECT COUNT(DISTINCT path) FROM urls WHERE reason = 'not_shrunk'")[0][0],
        "reasons": state.reasons(),
        "sources": _tally(table["source"]),
        "classes": _tally(table["query_label"]),
    }


def _tally(column: pa.ChunkedArray) -> dict[str, int]:
    counted = pc.value_counts(column).to_pylist()
    return {str(entry["values"]): entry["counts"] for entry in sorted(counted, key=lambda entry: str(entry["values"]))}
