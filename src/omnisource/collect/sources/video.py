"""Video sharing through yt-dlp: search, length filters, and the download of what was found.

yt-dlp runs as a program of its own, behind the guard. The argument is a search prefix that yt-dlp knows (`ytsearch`,
the default) or the address of a search page with `{query}` in it. What is at most `max_clip_s` long is a clip, what is
longer is an untrimmed video; `format` takes only one of them.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omnisource.collect.candidate import Candidate
from omnisource.collect.fetch import Fetcher, FetchError
from omnisource.collect.keys import Keys
from omnisource.collect.licences import normalise
from omnisource.collect.queries import Query, Window
from omnisource.collect.state import UrlRow
from omnisource.collect.store import Store
from omnisource.collect.tool import run_tool
from omnisource.collect.web import Web
from omnisource.recipe.collect import CollectSource

_SEARCH_TIMEOUT_S = 300.0
_DOWNLOAD_TIMEOUT_S = 3600.0
_COMMON = ("--ignore-config", "--no-cache-dir", "--no-warnings", "--no-progress")
# The page whose robots.txt decides for a search prefix.
_SEARCH_PAGES = {"ytsearch": "https://www.youtube.com/results", "ytsearchdate": "https://www.youtube.com/results"}


class VideoSearch:
    """Clips and untrimmed videos by words."""

    page_size = 20
    cap = 500
    windowed = True
    requests_per_result = 0

    def __init__(self, settings: CollectSource, web: Web) -> None:
        self._name, self._web = settings.label, web
        self._where = settings.argument or "ytsearch"
        self._format = settings.format
        self.windowed = "{query}" not in self._where

    def search(self, query: Query | None, window: Window | None, limit: int) -> Iterator[Candidate]:
        assert query is not None
        limits = self._web.fetcher.settings
        if "{query}" in self._where:
            asked = page = self._where.replace("{query}", quote(query.text, safe=""))
        else:
            period = f" after:{window.start} before:{window.end}" if window else ""
            asked = f"{self._where}{limit}:{query.text}{period}"
            page = _SEARCH_PAGES.get(self._where, "https://www.youtube.com/results")
        arguments = [*_COMMON, "--flat-playlist", "--playlist-end", str(limit), "--dump-single-json", "--", asked]
        output = self._web.tool("yt_dlp", arguments, page, _SEARCH_TIMEOUT_S)
        try:
            answer = json.loads(output)
        except ValueError:
            raise FetchError("tool_failed", "yt-dlp printed something else than JSON") from None
        for entry in (answer.get("entries") or [answer])[:limit]:
            candidate = self._candidate(query, entry, limits.max_clip_s)
            fits = candidate.duration_s is None or candidate.duration_s <= limits.max_untrimmed_s
            if fits and self._format in (None, candidate.format):
                yield candidate

    def _candidate(self, query: Query, entry: dict[str, Any], max_clip_s: float) -> Candidate:
        duration = entry.get("duration")
        if duration is None:
            found_format = self._format or "untrimmed"
        else:
            found_format = "clip" if duration <= max_clip_s else "untrimmed"
        url = entry.get("webpage_url") or entry["url"]
        return Candidate(
            url=url,
            source=self._name,
            format=found_format,
            label=query.label,
            query=query.text,
            page_url=url,
            title=entry.get("title"),
            author=entry.get("uploader") or entry.get("channel"),
            licence=normalise(entry.get("license")),
            duration_s=duration,
            fetcher="yt-dlp",
        )


class VideoTaker:
    """Downloads the video of a page, as one file of moderate size that needs no joining."""

    def __init__(self, fetcher: Fetcher, store: Store, keys: Keys) -> None:
        self._fetcher, self._store, self._keys = fetcher, store, keys

    async def __call__(self, row: UrlRow) -> Path:
        settings = self._fetcher.settings
        most = settings.max_bytes(row.format)
        longest = settings.max_clip_s if row.format == "clip" else settings.max_untrimmed_s
        partial = self._store.partial(row.url)
        self._store.make_room(0)  # yt-dlp would say of a full disk that the video failed
        with tempfile.TemporaryDirectory(dir=partial.parent) as folder:
            arguments = [
                *_COMMON,
                *("--format", "best[height<=480]/best", "--max-filesize", str(most), "--no-playlist", "--no-part"),
                *("--match-filters", f"duration <=? {longest:.0f}", "--output", "media"),
                *("--", row.url),
            ]
            async with self._fetcher.turn(row.url, robots=settings.robots):
                await run_tool(
                    self._fetcher.resolver,
                    "yt_dlp",
                    arguments,
                    most + 2**24,
                    _DOWNLOAD_TIMEOUT_S,
                    self._keys.cookies,
                    Path(folder),
                )
            files = [path for path in Path(folder).iterdir() if path.is_file() and not path.is_symlink()]
            if not files:
                raise FetchError("no_media", "yt-dlp loaded nothing: too long, too large, or not there")
            max(files, key=lambda path: path.stat().st_size).replace(partial)
        return partial
