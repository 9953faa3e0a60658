"""The one way out to the network: an httpx transport that connects to checked addresses only.

httpx has no hook between look-up and connect, its engine httpcore has: a network backend. Ours resolves and checks the
host and then connects to the very address that was checked; TLS still verifies the host's name.
"""

from collections.abc import AsyncIterator, Iterable

import httpcore
import httpx

from omnisource.collect.addresses import Refused, Resolver

_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError)


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that the resolver has checked."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolver.resolve(host)
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)


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

    Raises `httpx.TransportError` for network trouble and `Refused` for what must not be asked. One connection each, and a
    free list of transports above: httpcore's own pool slows down with the number of its connections.
    """

    def __init__(self, resolver: Resolver, verify: bool | str = True) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(verify=verify),
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


__all__ = ["PinnedBackend", "PinnedTransport", "Refused"]
