"""A proxy on loopback for the libraries that open connections of their own (yt-dlp, gallery-dl).

They follow redirects and playlists wherever these lead. Through the guard they reach only addresses that the resolver
has checked, and no more bytes than the job may take.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from omnisource.collect.addresses import Refused, Resolver, canonical_url

_MAX_HEAD = 64 * 1024
_TIMEOUT_S = 60.0
_CHUNK = 64 * 1024


@asynccontextmanager
async def guard(resolver: Resolver, max_bytes: int) -> AsyncIterator[str]:
    """Runs a proxy for one job; gives its URL. After `max_bytes` in all it closes every connection."""
    proxy = _Proxy(resolver, max_bytes)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=_MAX_HEAD)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(proxy.tasks):
            task.cancel()
        await asyncio.gather(*proxy.tasks, return_exceptions=True)


class _Proxy:
    def __init__(self, resolver: Resolver, max_bytes: int) -> None:
        self._resolver, self._left = resolver, max_bytes
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            tunnel = method == "CONNECT"
            url = canonical_url(f"https://{target}" if tunnel else target)
            parts = urlsplit(url)
            port = parts.port or (443 if tunnel else 80)
            addresses = await self._resolver.resolve(parts.hostname or "")
            async with asyncio.timeout(_TIMEOUT_S):
                answers, upstream = await asyncio.open_connection(addresses[0], port)
            if tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                upstream.write(_origin_form(method, parts.path, parts.query, head))
            await asyncio.gather(self._relay(reader, upstream), self._relay(answers, writer))
        except Refused as refused:
            writer.write(f"HTTP/1.1 403 {refused.reason}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        finally:
            for side in (writer, upstream):
                if side is not None:
                    with contextlib.suppress(OSError, RuntimeError):
                        side.close()
            self.tasks.discard(task)

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            while self._left > 0:
                async with asyncio.timeout(_TIMEOUT_S):
                    chunk = await source.read(_CHUNK)
                if not chunk:
                    break
                self._left -= len(chunk)
                sink.write(chunk)
                await sink.drain()
        with contextlib.suppress(OSError, RuntimeError):
            if sink.can_write_eof():
                sink.write_eof()


def _origin_form(method: str, path: str, query: str, head: bytes) -> bytes:
    """The request head as the server wants it: path only, and closing, since one connection serves one request."""
    dropped = (b"proxy-", b"connection:", b"keep-alive:")
    lines = [line for line in head.split(b"\r\n")[1:] if line and not line.lower().startswith(dropped)]
    target = path + (f"?{query}" if query else "")
    first = f"{method} {target} HTTP/1.1".encode("latin-1")
    return b"\r\n".join([first, *lines, b"Connection: close", b"", b""])
