"""A small site on loopback that behaves, or misbehaves, as a test says. Nothing leaves the machine."""

import asyncio
import hashlib
import io
import json
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image


@dataclass
class Request:
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    number: int  # how many times this path was asked, from 1


Handler = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def jpeg(seed: int = 0, size: int = 32) -> bytes:
    """A JPEG that differs from those of other seeds."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def answer(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a whole response; header names with underscores."""
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def sends(*responses: bytes) -> Handler:
    """Sends the first response to the first request, and so on; the last one from then on."""

    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(responses[min(request.number, len(responses)) - 1])

    return handle


def file(body: bytes, content_type: str = "image/jpeg", etag: str | None = None) -> Handler:
    """A file with an ETag that answers ranges and conditions as a good server does."""
    tag = etag or '"' + hashlib.md5(body, usedforsecurity=False).hexdigest() + '"'

    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        wanted = request.headers.get("range", "")
        if request.headers.get("if-none-match") == tag:
            writer.write(answer(304, ETag=tag))
        elif wanted and request.headers.get("if-range", tag) == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            part = f"bytes {start}-{len(body) - 1}/{len(body)}"
            writer.write(answer(206, body[start:], Content_Type=content_type, ETag=tag, Content_Range=part))
        else:
            writer.write(answer(200, body, Content_Type=content_type, ETag=tag))

    return handle


def page(value: object) -> Handler:
    """A JSON page, or whatever a function of the request makes of it."""

    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        body = json.dumps(value(request) if callable(value) else value).encode()
        writer.write(answer(200, body, Content_Type="application/json"))

    return handle


@dataclass
class Site:
    """Serves `routes` (path -> handler) on 127.0.0.1 from a thread of its own; keeps every request in `log`."""

    routes: dict[str, Handler] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> "Site":
        self._at_once = 0
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [request.path for request in self.log]

    def _serve(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self.tls)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._stop.wait()
            server.close()

        asyncio.run(main())

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                target = urlsplit(head[0].split(" ")[1])
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                self.asked[target.path] += 1
                query = {name: values[0] for name, values in parse_qs(target.query).items()}
                request = Request(target.path, query, headers, self.asked[target.path])
                self.log.append(request)
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    await self.routes.get(target.path, sends(answer(404)))(request, writer)
                    await writer.drain()
                finally:
                    self._at_once -= 1
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def closes(*parts: bytes, pause_s: float = 0.0) -> Handler:
    """Sends the parts, with pauses between them, and then breaks the connection off."""

    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        writer.transport.abort()

    return handle
