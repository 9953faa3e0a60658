"""Flickr: photographs by words or tags, with licence and time period (documented API). Needs a key.

icrawler has a Flickr crawler too; it asks once more for every photograph to learn its address and knows no licence,
both of which the API gives with the search.
"""

from collections.abc import Iterator
from typing import Any

from omnisource.collect.candidate import Candidate
from omnisource.collect.fetch import FetchError
from omnisource.collect.licences import normalise
from omnisource.collect.queries import Query, Window
from omnisource.collect.web import Web
from omnisource.recipe.collect import CollectSource

_ENDPOINT = "https://api.flickr.com/services/rest/"
_SIZES = ("url_z", "url_c", "url_l", "url_m", "url_o")  # 640 pixels first: enough to crop 224 from


class Flickr:
    """Photographs by words, or by tag where the source has `tags: true`."""

    page_size = 250
    cap = 4_000
    windowed = True
    requests_per_result = 0

    def __init__(self, settings: CollectSource, web: Web) -> None:
        self._name, self._web = settings.label, web
        self._endpoint = settings.endpoint or _ENDPOINT
        self._asks_by = "tags" if settings.tags else "text"
        self._key = web.keys.need("flickr", "https://www.flickr.com/services/api/keys")
        self._licences: dict[str, str | None] = {}

    def search(self, query: Query | None, window: Window | None, limit: int) -> Iterator[Candidate]:
        assert query is not None
        if not self._licences:
            named = self._ask("flickr.photos.licenses.getInfo")["licenses"]["license"]
            self._licences = {str(entry["id"]): normalise(entry.get("url") or entry.get("name")) for entry in named}
        asked: dict[str, Any] = {
            self._asks_by: query.text,
            "media": "photos",
            "per_page": min(self.page_size, limit),
            "extras": ",".join(("license", "owner_name", *_SIZES)),
            "sort": "relevance",
        }
        if window:
            asked |= {"min_upload_date": f"{window.start} 00:00:00", "max_upload_date": f"{window.end} 23:59:59"}
        page = given = 0
        while given < limit:
            page += 1
            photos = self._ask("flickr.photos.search", **asked, page=page)["photos"]
            for photo in photos["photo"]:
                url = next((photo[size] for size in _SIZES if photo.get(size)), None)
                if url and given < limit:
                    given += 1
                    yield self._candidate(query, photo, url)
            if page >= photos["pages"] or not photos["photo"]:  # it counts pages that it does not give
                return

    def _candidate(self, query: Query, photo: dict[str, Any], url: str) -> Candidate:
        return Candidate(
            url=url,
            source=self._name,
            format="image",
            label=query.label,
            query=query.text,
            page_url=f"https://www.flickr.com/photos/{photo['owner']}/{photo['id']}",
            title=photo.get("title"),
            author=photo.get("ownername") or photo["owner"],
            licence=self._licences.get(str(photo.get("license"))),
        )

    def _ask(self, method: str, **parameters: Any) -> Any:
        fixed = {"method": method, "api_key": self._key, "format": "json", "nojsoncallback": 1}
        answer = self._web.api(self._endpoint, fixed | parameters)
        if answer.get("stat") != "ok":
            raise FetchError("service_error", str(answer.get("message"))[:200])
        return answer
