"""Politeness: who may be asked, when, how often at once, and what an answer means.

Every request of the collection goes through here, searches and downloads alike: robots.txt, a limit of requests at once
and of requests a second for each host, Retry-After, redirects checked one by one, time limits on silence and slowness.
"""

import asyncio
import contextlib
import email.utils
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from omnisource.collect.addresses import Refused, Resolver, canonical_url, host_of, join
from omnisource.collect.transport import ConnectFailed, PinnedTransport, tls_context
from omnisource.recipe.collect import Collect

if TYPE_CHECKING:  # an extra: imported where it is used
    import httpx

_MAX_REDIRECTS = 8
_MAX_ROBOTS_BYTES = 512 * 1024
_MOST_IDLE_HOSTS = 1000
_HEAD_TIMEOUTS = 3  # for connecting, asking and the whole head of the answer; each silence may be one long
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FetchError(Exception):
    """A request that failed. `retry` says whether another try makes sense, `wait_s` how long the server wants peace."""

    def __init__(self, reason: str, message: str = "", *, retry: bool = False, wait_s: float | None = None) -> None:
        super().__init__(f"{reason}: {message}" if message else reason)
        self.reason, self.retry, self.wait_s = reason, retry, wait_s


@dataclass
class Host:
    """What is known about one host during a run."""

    slots: asyncio.Semaphore
    interval_s: float  # between the starts of two requests
    next_request: float = 0.0  # monotonic seconds; paces requests
    blocked_until: float = 0.0  # the host asked for peace until then
    free: list[PinnedTransport] = field(default_factory=list)  # open connections that nobody uses
    robots: Any = None  # protego.Protego once read
    robots_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


@dataclass
class Answer:
    """A final answer whose body has not been read yet."""

    url: str
    status: int
    headers: "httpx.Headers"
    chunks: AsyncIterator[bytes]


class Fetcher:
    """Sends requests within the recipe's limits. Belongs to one event loop; close it with `aclose`."""

    def __init__(self, settings: Collect) -> None:
        self.settings = settings
        self.resolver = Resolver(settings.allow_private)
        self._tls = tls_context()
        self._hosts: OrderedDict[str, Host] = OrderedDict()

    async def aclose(self) -> None:
        for host in self._hosts.values():
            for transport in host.free:
                await transport.aclose()
        self._hosts.clear()

    @asynccontextmanager
    async def get(
        self, url: str, headers: Mapping[str, str] | None = None, *, robots: bool | None = None
    ) -> AsyncIterator[Answer]:
        """Opens `url`, following redirects; the block reads the body from `Answer.chunks`.

        `headers` go to the first host only: what may hold a key must not travel with a redirect. Statuses 200, 206, 304
        and 416 are answers, all others raise.

        Raises:
            Refused: the URL, or one that it redirects to, must not be asked.
            FetchError: no answer, or none that is of use.
        """
        url = canonical_url(url)
        first = host_of(url)
        seen = {url}
        for _ in range(_MAX_REDIRECTS + 1):
            if self.settings.robots if robots is None else robots:
                await self._obey_robots(url)
            async with self._request(url, headers if host_of(url) == first else None) as response:
                if response.status_code not in _REDIRECTS:
                    self._judge(url, response)
                    yield Answer(url, response.status_code, response.headers, self._paced(response))
                    return
                url = join(url, response.headers.get("location", ""))
            if url in seen:
                raise FetchError("redirects", "a loop")
            seen.add(url)
        raise FetchError("redirects", f"more than {_MAX_REDIRECTS}")

    async def read(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        robots: bool | None = None,
        max_bytes: int = 16 * 2**20,
    ) -> bytes:
        """The whole body of `url`, for pages of search results. Tries again as the settings say."""
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.get(url, headers, robots=robots) as answer:
                    return await read_limited(answer.chunks, max_bytes)
            except FetchError as error:
                if not error.retry or attempt >= self.settings.attempts:
                    raise
                await asyncio.sleep(self.wait_before_retry(attempt, error))

    def wait_before_retry(self, attempt: int, error: FetchError) -> float:
        """Seconds between try number `attempt` (from 1) and the next: doubling, or what the server asked for."""
        doubled: float = self.settings.backoff_s * 2.0 ** (attempt - 1)
        return max(error.wait_s or 0.0, doubled)

    @property
    def longest_wait_s(self) -> float:
        """Seconds that any URL may have to wait for its next try."""
        return max(self.settings.max_wait_s, self.wait_before_retry(self.settings.attempts, FetchError("")))

    async def allowed(self, url: str) -> bool:
        """Whether the robots.txt of the host lets our user agent ask for `url`."""
        rules = await self._robots(url)
        return bool(rules.can_fetch(url, self.settings.user_agent))

    @asynccontextmanager
    async def turn(self, url: str, *, robots: bool) -> AsyncIterator[None]:
        """Waits until `url` may be asked by other means; the block counts as a request to its host."""
        url = canonical_url(url)
        if robots:
            await self._obey_robots(url)
        host = self._host(host_of(url))
        host.users += 1
        try:
            async with host.slots:
                await self._pace(host)
                yield
        finally:
            host.users -= 1

    # --- one request -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _request(self, url: str, headers: Mapping[str, str] | None) -> "AsyncIterator[httpx.Response]":
        host = self._host(host_of(url))
        host.users += 1
        try:
            async with host.slots:
                await self._pace(host)
                transport = host.free.pop() if host.free else PinnedTransport(self.resolver, self._tls)
                clean = False
                try:
                    async with self._send(transport, url, headers) as response:
                        yield response
                    clean = True
                finally:
                    # A connection that was left in the middle of a body is closed by httpcore, not reused.
                    if clean and len(host.free) < self.settings.per_host:
                        host.free.append(transport)
                    else:
                        with contextlib.suppress(Exception):
                            await transport.aclose()
        finally:
            host.users -= 1

    @asynccontextmanager
    async def _send(
        self, transport: PinnedTransport, url: str, headers: Mapping[str, str] | None
    ) -> "AsyncIterator[httpx.Response]":
        import httpx

        timeout = self.settings.timeout_s
        try:
            request = httpx.Request(
                "GET",
                url,
                headers={"user-agent": self.settings.user_agent, "accept-encoding": "identity", **(headers or {})},
                extensions={"timeout": {"connect": timeout, "read": timeout, "write": timeout, "pool": timeout}},
            )
        except (
            httpx.InvalidURL,
            UnicodeError,
        ) as error:  # it is stricter with international names
            raise Refused("bad_url", str(error)) from None
        try:
            async with asyncio.timeout(_HEAD_TIMEOUTS * timeout):  # a head can drip, too, and never end
                response = await transport.handle_async_request(request)
            stream: Any = response.stream
            try:
                yield response
            finally:
                await stream.aclose()
        except ConnectFailed as error:
            raise FetchError("connect", str(error), retry=True) from None
        except TimeoutError:
            raise FetchError("timeout", "the server fell silent", retry=True) from None
        except OSError as error:
            raise FetchError("reset", str(error), retry=True) from None

    def _judge(self, url: str, response: "httpx.Response") -> None:
        status = response.status_code
        if status in (200, 206, 304, 416):
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise FetchError("encoded", "compressed though asked not to")
            return
        if status in (429, 503):
            wait = self._retry_after(response.headers.get("retry-after"))
            if wait > self.settings.max_wait_s:
                raise FetchError(f"http_{status}", f"asks for {wait:.0f} s of peace", wait_s=wait)
            host = self._host(host_of(url))
            host.blocked_until = max(host.blocked_until, time.monotonic() + wait)
            raise FetchError(f"http_{status}", retry=True, wait_s=wait)
        raise FetchError(f"http_{status}", retry=status >= 500 or status == 408)

    @staticmethod
    def _retry_after(value: str | None) -> float:
        """Seconds from a Retry-After header: a number, or a date."""
        if not value:
            return 0.0
        if value.isascii() and value.strip().isdigit():
            return float(value)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, OverflowError):
            return 0.0

    async def _paced(self, response: "httpx.Response") -> AsyncIterator[bytes]:
        """The body, given up where it drips: `timeout_s` after the start it must have come fast enough."""
        started, received = time.monotonic(), 0
        slowest = self.settings.slowest_bytes_per_s
        stream: Any = response.stream
        async for chunk in stream:
            received += len(chunk)
            elapsed = time.monotonic() - started
            if elapsed > self.settings.timeout_s and received < elapsed * slowest:
                raise FetchError("slow", f"{received / elapsed:.0f} bytes/s", retry=True)
            yield chunk

    async def _pace(self, host: Host) -> None:
        while True:
            now = time.monotonic()
            due = max(host.next_request, host.blocked_until)
            if due <= now:
                break
            await asyncio.sleep(due - now)
        host.next_request = time.monotonic() + host.interval_s

    def _host(self, name: str) -> Host:
        host = self._hosts.get(name)
        if host is None:
            while len(self._hosts) >= _MOST_IDLE_HOSTS and self._drop_idle_host():
                pass
            host = self._hosts[name] = Host(
                slots=asyncio.Semaphore(self.settings.per_host),
                interval_s=1.0 / self.settings.rate_per_host if self.settings.rate_per_host else 0.0,
            )
        self._hosts.move_to_end(name)
        return host

    def _drop_idle_host(self) -> bool:
        now = time.monotonic()
        for name, host in self._hosts.items():
            if host.users == 0 and host.blocked_until <= now:
                for transport in host.free:
                    asyncio.get_running_loop().create_task(transport.aclose())
                del self._hosts[name]
                return True
        return False

    # --- robots.txt --------------------------------------------------------------------------------------------------

    async def _obey_robots(self, url: str) -> None:
        if not await self.allowed(url):
            raise FetchError(
                "robots", "robots.txt forbids it; collect.robots: false overrules, if you have the right to"
            )

    async def _robots(self, url: str) -> Any:
        from protego import Protego

        parts = urlsplit(url)
        host = self._host(parts.netloc)
        host.users += 1
        try:
            async with host.robots_lock:
                if host.robots is None:
                    rules = Protego.parse(await self._robots_text(f"{parts.scheme}://{parts.netloc}/robots.txt"))
                    delay = rules.crawl_delay(self.settings.user_agent) or 0.0
                    if delay > self.settings.max_wait_s:
                        raise FetchError("crawl_delay", f"robots.txt asks for {delay:.0f} s of peace", wait_s=delay)
                    host.interval_s = max(host.interval_s, delay)
                    host.robots = rules
            return host.robots
        finally:
            host.users -= 1

    async def _robots_text(self, url: str) -> str:
        """The rules; none where the host has no such file, a failure where it cannot say (RFC 9309, section 2.3.1)."""
        try:
            async with self.get(url, robots=False) as answer:
                body = b""
                async for chunk in answer.chunks:
                    body += chunk
                    if len(body) > _MAX_ROBOTS_BYTES:
                        break
                return body[:_MAX_ROBOTS_BYTES].decode("utf-8", "replace")
        except FetchError as error:
            if error.reason.startswith("http_4") and error.reason != "http_429":
                return ""
            raise FetchError("robots_unreachable", str(error), retry=error.retry, wait_s=error.wait_s) from None


async def read_limited(chunks: AsyncIterator[bytes], max_bytes: int) -> bytes:
    """A whole body in memory. Raises `FetchError` with reason `too_big`."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise FetchError("too_big", f"more than {max_bytes} bytes")
    return bytes(body)
