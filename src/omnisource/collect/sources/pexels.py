"""Pexels: free photographs and videos (documented API, https://www.pexels.com/api). Needs a key."""

from collections.abc import Iterator
from typing import Any

from omnisource.collect.candidate import Candidate
from omnisource.collect.queries import Query, Window
from omnisource.collect.web import Web
from omnisource.recipe.collect import CollectSource

_ENDPOINT = "https://api.pexels.com"
_SHORT_SIDE = 360  # the smallest video file that still has this short side is taken


class Pexels:
    """Photographs by words, or videos where `format` is clip or untrimmed."""

    page_size = 80
    cap = 8_000
    windowed = False
    requests_per_result = 0

    def __init__(self, settings: CollectSource, web: Web) -> None:
        self._name, self._web = settings.label, web
        self._endpoint = (settings.endpoint or _ENDPOINT).rstrip("/")
        self._format = settings.format or "image"
        self._headers = {"authorization": web.keys.need("pexels", "https://www.pexels.com/api")}

    def search(self, query: Query | None, window: Window | None, limit: int) -> Iterator[Candidate]:
        assert query is not None
        photos = self._format == "image"
        page = given = 0
        while given < limit:
            page += 1
            url = f"{self._endpoint}/{'v1' if photos else 'videos'}/search"
            asked = {"query": query.text, "page": page, "per_page": min(self.page_size, limit)}
            answer = self._web.api(url, asked, self._headers)
            results = answer["photos" if photos else "videos"]
            for result in results[: limit - given]:
                given += 1
                if photos or result["video_files"]:
                    yield self._photo(query, result) if photos else self._video(query, result)
            if not answer.get("next_page") or not results:
                return

    def _photo(self, query: Query, result: dict[str, Any]) -> Candidate:
        return Candidate(
            url=result["src"]["large"],
            source=self._name,
            format="image",
            label=query.label,
            query=query.text,
            page_url=result.get("url"),
            title=result.get("alt"),
            author=result.get("photographer"),
            licence="pexels",
        )

    def _video(self, query: Query, result: dict[str, Any]) -> Candidate:
        files = sorted(result["video_files"], key=lambda file: min(file.get("width") or 0, file.get("height") or 0))
        large = [file for file in files if min(file.get("width") or 0, file.get("height") or 0) >= _SHORT_SIDE]
        return Candidate(
            url=(large or files[-1:])[0]["link"],
            source=self._name,
            format=self._format,
            label=query.label,
            query=query.text,
            page_url=result.get("url"),
            author=(result.get("user") or {}).get("name"),
            licence="pexels",
            duration_s=result.get("duration"),
        )
