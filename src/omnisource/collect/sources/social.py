"""Social media and galleries through gallery-dl, which lists what a page links to; we load it.

gallery-dl runs as a program of its own (it is GPL-2.0), behind the guard. The argument is a page address with `{query}`
in it, for instance `gallery-dl:https://www.example.org/tags/{query}/`. Many services allow no robots on such pages, or
only after signing in: cookies come from OMNISOURCE_COOKIES, and whether you may use them is up to the service.
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from omnisource.collect.candidate import Candidate
from omnisource.collect.fetch import FetchError
from omnisource.collect.licences import normalise
from omnisource.collect.queries import Query, Window
from omnisource.collect.web import Web
from omnisource.errors import UserError
from omnisource.recipe.collect import CollectSource

_TIMEOUT_S = 900.0
_VIDEOS = frozenset({"mp4", "m4v", "mov", "webm", "mkv", "ogv"})
_URL_MESSAGE = 3


class Social:
    """Images and short clips from any page that gallery-dl knows, by tag or word."""

    page_size = 50
    cap = 100_000
    windowed = False
    requests_per_result = 0

    def __init__(self, settings: CollectSource, web: Web) -> None:
        self._name, self._web, self._page = settings.label, web, settings.argument
        self._format = settings.format
        if "{query}" not in self._page:
            raise UserError(
                "collect source gallery-dl needs a page address with {query}, as gallery-dl:https://.../{query}"
            )

    def search(self, query: Query | None, window: Window | None, limit: int) -> Iterator[Candidate]:
        assert query is not None
        page = self._page.replace("{query}", quote(query.text, safe=""))
        arguments = ["--config-ignore", "--no-input", "--dump-json", "--range", f"1-{limit}", page]
        output = self._web.tool("gallery_dl", arguments, page, _TIMEOUT_S)
        try:
            messages = json.loads(output)
        except ValueError:
            raise FetchError("tool_failed", "gallery-dl printed something else than JSON") from None
        problems = [message[1] for message in messages if message[0] < 0]
        if problems and len(problems) == len(messages):
            raise FetchError("tool_failed", f"gallery-dl: {problems[0].get('error')}")
        for message in messages:
            if message[0] == _URL_MESSAGE:
                candidate = self._candidate(query, page, message[1], message[2])
                if self._format in (None, candidate.format):
                    yield candidate

    def _candidate(self, query: Query, page: str, url: str, facts: dict[str, Any]) -> Candidate:
        embedded = url.startswith("ytdl:")
        video = embedded or str(facts.get("extension", "")).lower() in _VIDEOS
        return Candidate(
            url=url.removeprefix("ytdl:"),
            source=self._name,
            format="clip" if video else "image",
            label=query.label,
            query=query.text,
            page_url=_text(facts, "post_url", "page_url", "permalink") or page,
            title=_text(facts, "title", "description", "content"),
            author=_text(facts, "author", "username", "user", "owner", "artist", "uploader"),
            licence=normalise(_text(facts, "license", "licence")),
            fetcher="yt-dlp" if embedded else "http",
        )


def _text(facts: dict[str, Any], *names: str) -> str | None:
    """The first of some fields that holds text; an author may be an object with a name."""
    for name in names:
        value = facts.get(name)
        if isinstance(value, dict):
            value = value.get("name") or value.get("username")
        if isinstance(value, str) and value.strip():
            return value.strip()[:300]
    return None
