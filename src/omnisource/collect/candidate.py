"""What a source is, and what it finds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from omnisource.collect.queries import Query, Window
from omnisource.recipe.collect import Format

Fetcher = Literal["http", "yt-dlp", "file"]


@dataclass(frozen=True)
class Candidate:
    """One search result: where a medium lies and what is known about it.

    `digest` is a content hash that the service itself publishes (`sha1:...`): two results with the same one are
    loaded once. `fetcher` is `yt-dlp` where `url` is a page that a video has to be taken out of, `file` where it is
    a local path.
    """

    url: str
    source: str
    format: Format
    label: str | None = None
    query: str | None = None
    page_url: str | None = None
    title: str | None = None
    author: str | None = None
    licence: str | None = None
    duration_s: float | None = None
    digest: str | None = None
    fetcher: Fetcher = "http"


class Source(Protocol):
    """One place to collect from."""

    page_size: int  # results of one request
    cap: int  # most results that the service gives to one query
    windowed: bool  # whether it can be asked for a time period
    requests_per_result: int  # further requests that every result needs

    def search(self, query: Query | None, window: Window | None, limit: int) -> Iterator[Candidate]:
        """Yields at most `limit` results, best first; `query` is None for sources that list instead of searching."""
        ...
