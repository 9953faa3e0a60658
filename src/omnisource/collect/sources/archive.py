"""The Internet Archive: films and pictures (advanced search and metadata API, https://archive.org/developers)."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from omnisource.collect.candidate import Candidate
from omnisource.collect.fetch import FetchError
from omnisource.collect.licences import normalise
from omnisource.collect.queries import Query, Window
from omnisource.collect.web import Web
from omnisource.recipe.collect import CollectSource

_ENDPOINT = "https://archive.org"
_VIDEO_FORMATS = ("h.264", "h.264 ia", "mpeg4", "512kb mpeg4", "webm", "ogg video")  # small derivatives first
_IMAGE_FORMATS = ("jpeg", "png")


class Archive:
    """Items by words; one more request for each item tells its files. Asks for films unless `format` is image."""

    page_size = 50
    cap = 10_000
    windowed = True
    requests_per_result = 1

    def __init__(self, settings: CollectSource, web: Web) -> None:
        self._name, self._web = settings.label, web
        self._endpoint = (settings.endpoint or _ENDPOINT).rstrip("/")
        self._format = settings.format or "untrimmed"

    def search(self, query: Query | None, window: Window | None, limit: int) -> Iterator[Candidate]:
        assert query is not None
        words = query.text.replace('"', " ")
        asked = f'("{words}") AND mediatype:({"image" if self._format == "image" else "movies"})'
        if window:
            asked += f" AND publicdate:[{window.start} TO {window.end}]"
        page = given = 0
        while given < limit:
            page += 1
            parameters = {"q": asked, "rows": self.page_size, "page": page, "output": "json"}
            fields = {"fl[]": "identifier,title,creator,licenseurl"}
            answer = self._web.api(f"{self._endpoint}/advancedsearch.php", parameters | fields)["response"]
            for item in answer["docs"]:
                candidate = self._candidate(query, item)
                if candidate and given < limit:
                    given += 1
                    yield candidate
                if given >= limit:
                    return
            if page * self.page_size >= answer["numFound"] or not answer["docs"]:
                return

    def _candidate(self, query: Query, item: dict[str, Any]) -> Candidate | None:
        identifier = quote(item["identifier"], safe="")
        try:
            files = self._web.api(f"{self._endpoint}/metadata/{identifier}", {}).get("files", [])
        except FetchError as error:
            if error.reason.startswith("http_4") and not error.retry and error.wait_s is None:
                return None  # this item is withdrawn or shut; the others are not
            raise
        chosen = self._choose(files)
        if chosen is None:
            return None
        creator = item.get("creator")
        return Candidate(
            url=f"{self._endpoint}/download/{identifier}/{quote(chosen['name'])}",
            source=self._name,
            format=self._format,
            label=query.label,
            query=query.text,
            page_url=f"{self._endpoint}/details/{identifier}",
            title=item.get("title"),
            author=", ".join(creator) if isinstance(creator, list) else creator,
            licence=normalise(item.get("licenseurl")),
            duration_s=_seconds(chosen.get("length")),
            digest=f"sha1:{chosen['sha1']}" if chosen.get("sha1") else None,
        )

    def _choose(self, files: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The file of an item that is worth loading: the first known format, and of that the smallest."""
        for wanted in _IMAGE_FORMATS if self._format == "image" else _VIDEO_FORMATS:
            fitting = [file for file in files if str(file.get("format", "")).lower() == wanted]
            if fitting:
                return min(fitting, key=lambda file: int(file.get("size") or 0))
        return None


def _seconds(length: str | None) -> float | None:
    """Seconds from `93.5` or `1:33`."""
    try:
        parts = [float(part) for part in (length or "").split(":")]
    except ValueError:
        return None
    return sum((part * 60**place for place, part in enumerate(reversed(parts))), 0.0)
