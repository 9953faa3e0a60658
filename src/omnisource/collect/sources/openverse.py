"""Openverse: openly licensed images of many collections (https://api.openverse.org, documented API)."""

from collections.abc import Iterator

from omnisource.collect.candidate import Candidate
from omnisource.collect.licences import normalise
from omnisource.collect.queries import Query, Window
from omnisource.collect.web import Web
from omnisource.recipe.collect import CollectSource

_ENDPOINT = "https://api.openverse.org/v1/images/"


class Openverse:
    """Images by words. Works without a key; with a token (`openverse` key) the service allows more requests."""

    page_size = 20  # the most that the service gives without a token
    cap = 240
    windowed = False
    requests_per_result = 0

    def __init__(self, settings: CollectSource, web: Web) -> None:
        self._name, self._web = settings.label, web
        self._endpoint = settings.endpoint or _ENDPOINT
        token = web.keys.get("openverse")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    def search(self, query: Query | None, window: Window | None, limit: int) -> Iterator[Candidate]:
        assert query is not None
        page = given = 0
        while given < limit:
            page += 1
            asked = {"q": query.text, "page": page, "page_size": self.page_size}
            answer = self._web.api(self._endpoint, asked, self._headers)
            for result in answer["results"][: limit - given]:
                given += 1
                yield Candidate(
                    url=result["url"],
                    source=self._name,
                    format="image",
                    label=query.label,
                    query=query.text,
                    page_url=result.get("foreign_landing_url"),
                    title=result.get("title"),
                    author=result.get("creator"),
                    licence=normalise(result.get("license_url") or result.get("license")),
                )
            if page >= answer["page_count"] or not answer["results"]:
                return
