"""Wikimedia Commons: openly licensed images and videos (MediaWiki API, https://www.mediawiki.org/wiki/API)."""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

from omnisource.collect.candidate import Candidate
from omnisource.collect.licences import normalise
from omnisource.collect.queries import Query, Window
from omnisource.collect.web import Web
from omnisource.recipe.collect import CollectSource

_ENDPOINT = "https://commons.wikimedia.org/w/api.php"


class Commons:
    """Files by words: images, or videos where `format` is clip or untrimmed."""

    page_size = 50
    cap = 10_000
    windowed = False
    requests_per_result = 0

    def __init__(self, settings: CollectSource, web: Web) -> None:
        self._name, self._web = settings.label, web
        self._endpoint = settings.endpoint or _ENDPOINT
        self._format = settings.format or "image"

    def search(self, query: Query | None, window: Window | None, limit: int) -> Iterator[Candidate]:
        assert query is not None
        kind = "bitmap" if self._format == "image" else "video"
        asked: dict[str, Any] = {
            "action": "query",
            "format": "json",
            "formatversion": 2,
            "generator": "search",
            "gsrsearch": f"filetype:{kind} {query.text}",
            "gsrnamespace": 6,
            "gsrlimit": min(self.page_size, limit),
            "prop": "imageinfo",
            "iiprop": "url|sha1|size|mime|user|extmetadata",
            "iiextmetadatafilter": "Artist|LicenseShortName|LicenseUrl",
        }
        given = 0
        while given < limit:
            answer = self._web.api(self._endpoint, asked)
            for page in sorted(answer.get("query", {}).get("pages", []), key=lambda page: page.get("index", 0)):
                if given < limit and page.get("imageinfo"):
                    given += 1
                    yield self._candidate(query, page["title"], page["imageinfo"][0])
            following = answer.get("continue", {})
            if following.items() <= asked.items():  # no more, or the same again
                return
            asked |= following

    def _candidate(self, query: Query, title: str, info: dict[str, Any]) -> Candidate:
        said = {name: str(entry["value"]) for name, entry in (info.get("extmetadata") or {}).items()}
        return Candidate(
            url=info["url"],
            source=self._name,
            format=self._format,
            label=query.label,
            query=query.text,
            page_url=info.get("descriptionurl"),
            title=title.removeprefix("File:"),
            author=_plain(said.get("Artist", "")) or info.get("user"),
            licence=normalise(said.get("LicenseUrl") or said.get("LicenseShortName")),
            duration_s=info.get("duration"),
            digest=f"sha1:{info['sha1']}" if info.get("sha1") else None,
        )


def _plain(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())
