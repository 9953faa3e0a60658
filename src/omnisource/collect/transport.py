"""The one way out to the network: an httpx transport that connects to checked addresses only.

httpx has no hook between look-up and connect, its engine httpcore has: a network backend. Ours resolves and checks the
host and then connects to the very address that was checked; TLS still verifies the host's name.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpcore
import httpx

from omnisource.collect.addresses import Resolver

_READ_AHEAD = 2**17
_CLOSE_TIMEOUT_S = 5.0
_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection over asyncio's own streams: httpcore's default goes through anyio, at twice the cost a read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)
        except TimeoutError:
            raise httpcore.ReadTimeout("the server fell silent") from None
        except OSError as error:
            raise httpcore.ReadError(str(error)) from None

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            self._writer.write(buffer)
            async with asyncio.timeout(timeout):
                await self._writer.drain()
        except TimeoutError:
            raise httpcore.WriteTimeout("the server takes nothing in") from None
        except OSError as error:
            raise httpcore.WriteError(str(error)) from None

    async def aclose(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except TimeoutError:
            await self.aclose()
            raise httpcore.ConnectTimeout("no TLS handshake in time") from None
        except OSError as error:
            await self.aclose()
            raise httpcore.ConnectError(str(error)) from None
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # an idle connection that has something to say has been closed by the server
            return self._reader.at_eof() or self._writer.is_closing()
        return self._writer.get_extra_info({"ssl_object": "ssl_object", "server_addr": "peername"}.get(info, info))


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that the resolver has checked."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        problem: Exception = httpcore.ConnectError("no address")
        for address in await self._resolver.resolve(host):
            try:
                async with asyncio.timeout(timeout):
                    return _Stream(*await asyncio.open_connection(address, port, limit=_READ_AHEAD))
            except TimeoutError:
                problem = httpcore.ConnectTimeout(f"{address}: no connection in time")
            except OSError as error:
                problem = httpcore.ConnectError(f"{address}: {error}")
        raise problem


class _Body(httpx.AsyncByteStream):
    def __init__(self, stream: AsyncIterator[bytes], response: httpcore.Response) -> None:
        self._stream, self._response = stream, response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except httpcore.TimeoutException as error:
            raise httpx.ReadTimeout(str(error) or "timed out") from None
        except _NETWORK_ERRORS as error:
            raise httpx.ReadError(str(error) or type(error).__name__) from None

    async def aclose(self) -> None:
        await self._response.aclose()


class PinnedTransport(httpx.AsyncBaseTransport):
    """A connection to one host at a time, kept open between requests; never follows redirects, sends no cookies.

    Raises `httpx.TransportError` for network trouble and `Refused` for what must not be asked. One connection each,
    and a free list of transports above: httpcore's own pool slows down with the number of its connections.
    """

    def __init__(self, resolver: Resolver, tls: ssl.SSLContext) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=1,
            keepalive_expiry=30.0,
            network_backend=PinnedBackend(resolver),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        try:
            response = await self._pool.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except httpcore.ConnectTimeout as error:
            raise httpx.ConnectTimeout(str(error) or "no connection in time") from None
        except httpcore.TimeoutException as error:
            raise httpx.ReadTimeout(str(error) or "no answer in time") from None
        except httpcore.ConnectError as error:
            raise httpx.ConnectError(str(error)) from None
        except _NETWORK_ERRORS as error:
            raise httpx.ReadError(str(error) or type(error).__name__) from None
        assert hasattr(response.stream, "__aiter__")
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response.aiter_stream(), response),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()
