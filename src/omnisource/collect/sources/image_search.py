"""Image search engines through icrawler: its feeders know the search pages, its parsers know how to read them.

The pages themselves are asked for by our own fetcher, so that robots.txt, limits and address checks hold. Google and
Bing forbid their search pages to robots; they are asked only where the user sets `robots: false` for the source.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote_plus, urlsplit, urlunsplit

from omnisource.collect.candidate import Candidate
from omnisource.collect.queries import Query, Window
from omnisource.collect.web import Web
from omnisource.errors import UserError
from omnisource.recipe.collect import CollectSource

_PAGE_SIZES = {"google": 100, "bing": 20, "baidu": 30}


@dataclass
class _Urls:
    """Takes the place of icrawler's queue."""

    urls: list[str] = field(default_factory=list)

    def put(self, url: str, **_: Any) -> None:
        self.urls.append(url)


class ImageSearch:
    """Images by words from Google, Bing or Baidu. The engines tell neither author nor licence."""

    cap = 1000
    requests_per_result = 0

    def __init__(self, settings: CollectSource, web: Web) -> None:
        self._name, self._web, self._endpoint = settings.label, web, settings.endpoint
        self._engine = settings.name
        self.page_size = _PAGE_SIZES[settings.name]
        self.windowed = settings.name == "google"
        self._feeder, self._parser = _machinery(settings.name)

    def search(self, query: Query | None, window: Window | None, limit: int) -> Iterator[Candidate]:
        assert query is not None
        seen: set[str] = set()
        for page in self._pages(query, window, min(limit, self.cap)):
            body = self._web.page(self._elsewhere(page))
            found = [task["file_url"] for task in self._parser.parse(SimpleNamespace(content=body)) or ()]
            fresh = [url for url in dict.fromkeys(found) if url not in seen][: limit - len(seen)]
            seen.update(fresh)
            for url in fresh:
                yield Candidate(
                    url=url, source=self._name, format="image", label=query.label, query=query.text, page_url=page
                )
            if not fresh:  # the engine has no more, or repeats itself
                return

    def _pages(self, query: Query, window: Window | None, limit: int) -> list[str]:
        queue = _Urls()
        self._feeder.out_queue = queue
        words = query.text if self._engine == "google" else quote_plus(query.text)  # the others paste it in as it is
        filters = {"date": (window.start, window.end)} if window else None
        self._feeder.feed(keyword=words, offset=0, max_num=limit, filters=filters)
        return queue.urls

    def _elsewhere(self, page: str) -> str:
        if self._endpoint is None:
            return page
        place = urlsplit(self._endpoint)
        return urlunsplit(urlsplit(page)._replace(scheme=place.scheme, netloc=place.netloc))


def _machinery(engine: str) -> tuple[Any, Any]:
    """The feeder and the parser of an engine, without the threads around them."""
    try:
        from icrawler.builtin import baidu, bing, google
    except ImportError:
        raise UserError("icrawler is not installed; pip install 'omnisource[collect]'") from None
    feeder, parser = {
        "google": (google.GoogleFeeder, google.GoogleParser),
        "bing": (bing.BingFeeder, bing.BingParser),
        "baidu": (baidu.BaiduFeeder, baidu.BaiduParser),
    }[engine]
    logging.getLogger("icrawler").setLevel(logging.ERROR)
    return feeder(1, None, None), parser(1, None, None)
