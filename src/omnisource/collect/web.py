"""How a source, which runs in a thread, asks the network: through the one fetcher of the collection."""

import asyncio
import concurrent.futures
import json
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urlencode

from omnisource.collect.fetch import Fetcher, FetchError
from omnisource.collect.keys import Keys
from omnisource.collect.tool import run_tool

T = TypeVar("T")
_SEARCH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Web:
    """The network as a source sees it. Methods block; call them from a thread, never from the event loop's own.

    All raise `FetchError` or `Refused`.
    """

    fetcher: Fetcher
    loop: asyncio.AbstractEventLoop
    keys: Keys
    stop: threading.Event  # set when the run ends: nothing more is asked then
    robots: bool | None = None  # None: as the fetcher's settings say

    def with_robots(self, robots: bool | None) -> "Web":
        """The same network under another rule for robots.txt."""
        return replace(self, robots=robots)

    def page(self, url: str) -> bytes:
        """The body of a page of search results."""
        return self._wait(self.fetcher.read(url, robots=self.robots))

    def api(self, url: str, parameters: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Any:
        """The JSON answer of a documented API. Its terms govern it, not robots.txt, which is for crawlers of pages."""
        given = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
        body = self._wait(self.fetcher.read(f"{url}?{urlencode(given)}" if given else url, headers, robots=False))
        try:
            return json.loads(body)
        except ValueError:
            raise FetchError("not_json", "the service answered something else than JSON") from None

    def tool(self, module: str, arguments: Sequence[str], asked: str, timeout_s: float) -> bytes:
        """What a library's command prints, run behind the guard; `asked` is the page that robots.txt is read for."""
        return self._wait(self._tool(module, arguments, asked, timeout_s))

    async def _tool(self, module: str, arguments: Sequence[str], asked: str, timeout_s: float) -> bytes:
        wanted = self.fetcher.settings.robots if self.robots is None else self.robots
        async with self.fetcher.turn(asked, robots=wanted):
            return await run_tool(self.fetcher.resolver, module, arguments, _SEARCH_BYTES, timeout_s, self.keys.cookies)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self.stop.is_set():
            work.close()
            raise FetchError("stopped")
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop).result()
        except concurrent.futures.CancelledError:
            raise FetchError("stopped") from None
