"""The one way out to the network: an httpx transport that connects to checked addresses only.

httpx has no hook between look-up and connect, its engine httpcore has: a network backend. Ours resolves and checks the
host and then connects to the very address that was checked; TLS still verifies the host's name. It works on asyncio's
streams (httpcore's own goes through anyio, at twice the cost a read) and raises plain OSErrors.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from omnisource.collect.addresses import Resolver
from omnisource.errors import UserError

if TYPE_CHECKING:  # an extra: imported where it is used
    import httpx

_READ_AHEAD = 2**17
_CLOSE_TIMEOUT_S = 5.0


class ConnectFailed(OSError):
    """No connection, or no TLS handshake, with any of a host's addresses."""


class _Stream:
    """A connection, as httpcore wants one (AsyncNetworkStream)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        async with asyncio.timeout(timeout):
            return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._writer.write(buffer)
        async with asyncio.timeout(timeout):
            await self._writer.drain()

    async def aclose(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "_Stream":
        try:
            async with asyncio.timeout(timeout):
                await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except OSError as error:
            await self.aclose()
            raise ConnectFailed(str(error) or "no TLS handshake in time") from None
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # an idle connection that has something to say has been closed by the server
            return self._reader.at_eof() or self._writer.is_closing()
        return self._writer.get_extra_info(info)


class PinnedBackend:
    """Connects to addresses that the resolver has checked, as httpcore asks it to (AsyncNetworkBackend)."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def connect_tcp(self, host: str, port: int, timeout: float | None = None, **_: Any) -> _Stream:
        problem = "no address"
        for address in await self._resolver.resolve(host):
            try:
                async with asyncio.timeout(timeout):
                    return _Stream(*await asyncio.open_connection(address, port, limit=_READ_AHEAD))
            except OSError as error:
                problem = f"{address}: {error or 'no connection in time'}"
        raise ConnectFailed(problem)


class _Body:
    """The body of a response, read or not; closing it frees the connection."""

    def __init__(self, response: Any, failures: tuple[type[Exception], ...]) -> None:
        self._response, self._failures = response, failures

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_stream():
                yield chunk
        except self._failures as error:
            raise ConnectionError(str(error)) from None

    async def aclose(self) -> None:
        with contextlib.suppress(OSError):
            await self._response.aclose()


class PinnedTransport:
    """A connection to one host at a time, kept open between requests; never follows redirects, sends no cookies.

    Raises `ConnectFailed`, `TimeoutError` or another `OSError` for network trouble and `Refused` for what must not be
    asked. One connection each, and a free list of transports above: httpcore's own pool slows down with the number of
    its connections.
    """

    def __init__(self, resolver: Resolver, tls: ssl.SSLContext) -> None:
        import httpcore
        import httpx

        self._httpcore, self._httpx = httpcore, httpx
        backend: Any = PinnedBackend(resolver)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls, max_connections=1, keepalive_expiry=30.0, network_backend=backend
        )

    async def handle_async_request(self, request: "httpx.Request") -> "httpx.Response":
        """Sends a request; the response's body is read from its `stream`, which is closed by `aclose`."""
        httpcore, url = self._httpcore, request.url
        try:
            response = await self._pool.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    extensions=request.extensions,
                )
            )
        except (httpcore.ProtocolError, httpcore.NetworkError) as error:
            raise ConnectionError(str(error)) from None
        stream: Any = _Body(response, (httpcore.ProtocolError, httpcore.NetworkError))
        return self._httpx.Response(response.status, headers=response.headers, stream=stream)

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._pool.aclose()


def tls_context() -> ssl.SSLContext:
    """The certificates that servers are checked against. Raises `UserError` if the extra is not installed."""
    try:
        import httpcore  # noqa: F401
        import httpx
    except ImportError:
        raise UserError("asking the web needs httpx; pip install 'omnisource[collect]'") from None
    return httpx.create_ssl_context()
