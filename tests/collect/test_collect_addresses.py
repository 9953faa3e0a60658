"""What may be asked: URLs, addresses, redirects, name look-ups."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback_site import Site, answer, file, jpeg, sends

from omnisource.collect.addresses import Refused, Resolver, canonical_url, is_public
from omnisource.collect.guard import guard

Download = Callable[..., dict[str, tuple[str, str | None]]]

LOOPBACK_SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "０x7f.1",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "0",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
]


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS)
def test_every_spelling_of_loopback_is_refused(site: Site, download: Download, host: str) -> None:
    site.routes["/a.jpg"] = file(jpeg())
    (fate,) = download([f"http://{host}:{site.port}/a.jpg"], allow_private=False).values() or [("refused", "bad_url")]
    assert fate[0] in ("failed", "refused") and fate[1] in ("private_address", "bad_url", "dns")
    assert site.log == []


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS[:13])
def test_a_redirect_to_a_private_address_is_refused(download: Download, host: str, site: Site, monkeypatch) -> None:
    # The first hop is made public for the test by its name alone; the redirect names the address.
    lookup = socket.getaddrinfo

    def named(name: Any, *rest: Any, **more: Any) -> Any:
        return lookup("127.0.0.1" if name == "public.example" else name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", named)
    monkeypatch.setattr(
        "omnisource.collect.addresses.is_public",
        lambda address, real=is_public: real(address) or next(first_hop, False),
    )
    first_hop = iter([True])
    site.routes = {
        "/start.jpg": sends(answer(302, Location=f"http://{host}:{site.port}/secret.jpg")),
        "/secret.jpg": file(jpeg()),
    }
    url = f"http://public.example:{site.port}/start.jpg"
    assert download([url], allow_private=False, robots=False)[url][1] in ("private_address", "bad_url")
    assert site.paths() == ["/start.jpg"]


def test_the_connection_goes_to_the_address_that_was_checked(
    download: Download, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second look-up would give another answer (DNS rebinding): there must be none."""
    lookups: list[str] = []
    lookup = socket.getaddrinfo

    def rebinding(name: Any, *rest: Any, **more: Any) -> Any:
        if name == "rebind.example":
            lookups.append(name)
            return lookup("127.0.0.1" if len(lookups) == 1 else "127.0.0.2", *rest, **more)
        return lookup(name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    site.routes = {"/a.jpg": file(jpeg(1)), "/b.jpg": file(jpeg(2))}
    fates = download([f"http://rebind.example:{site.port}/{name}.jpg" for name in "ab"])
    assert set(fates.values()) == {("done", None)} and len(lookups) == 1
    assert {request.headers["host"] for request in site.log} == {f"rebind.example:{site.port}"}


PRIVATE = """
10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 224.0.0.1 255.255.255.255 0.0.0.0 192.0.2.1
fe80::1 fe80::1%eth0 fc00::1 ff02::1 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1:: 2001:db8::1
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_ipv6_form_is_no_more_public_than_what_it_carries(address: ipaddress.IPv4Address) -> None:
    if not is_public(address):
        assert not is_public(ipaddress.ip_address(f"::ffff:{address}"))
        assert not is_public(ipaddress.IPv6Address(0x64FF9B << 96 | int(address)))
        assert not is_public(ipaddress.IPv6Address(0x2002 << 112 | int(address) << 80))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "//a.example/",
        "http:///x",
        "http://",
        "http://user:pw@a.example/",
        "http://a.example:99999/",
        "http://a.example:x/",
        "http://[::1/",
        "http://a b.example/",
        "http://a.example/\r\nX: y",
        "http://a.example\\@b.example/",
        "http://-/",
        "http://a.example/" + "x" * 5000,
        "",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(Refused) as caught:
        canonical_url(url)
    assert caught.value.reason == "bad_url"


@pytest.mark.parametrize(
    ("url", "canonical"),
    {
        "HTTP://A.Example:80/x?q=1#f": "http://a.example/x?q=1",
        "https://a.example:443": "https://a.example/",
        "http://bücher.example/ü ".strip(): "http://xn--bcher-kva.example/%C3%BC",
        "http://0x7f.1/": "http://127.0.0.1/",
        "http://[0:0::1]:8080/": "http://[::1]:8080/",
        "http://a.example/a%20b?x=%2F": "http://a.example/a%20b?x=%2F",
    }.items(),
)
def test_urls_have_one_spelling(url: str, canonical: str) -> None:
    assert canonical_url(url) == canonical
    assert canonical_url(canonical) == canonical


@given(st.text(max_size=80))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    for url in (text, f"http://{text}", f"http://a.example/{text}"):
        with contextlib.suppress(Refused):
            assert canonical_url(canonical_url(url)) == canonical_url(url)


def through_guard(target: str, allow_private: bool, max_bytes: int = 10**9) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with (
            guard(Resolver(allow_private), max_bytes) as proxy,
            httpx.AsyncClient(proxy=proxy, trust_env=False, timeout=5) as client,
        ):
            return await client.get(target)

    return asyncio.run(ask())


def test_the_guard_lets_through_what_may_be_asked(site: Site) -> None:
    site.routes["/a.jpg"] = file(jpeg())
    response = through_guard(f"{site.url}/a.jpg?x=1", allow_private=True)
    assert response.content == jpeg() and site.log[0].query == {"x": "1"}


def test_the_guard_refuses_private_addresses(site: Site) -> None:
    assert through_guard(f"{site.url}/a.jpg", allow_private=False).status_code == 403
    with pytest.raises(httpx.ProxyError, match="403"):
        through_guard(f"https://127.0.0.1:{site.port}/a.jpg", allow_private=False)
    assert site.log == []


def test_the_guard_ends_after_its_bytes(site: Site) -> None:
    site.routes["/a.jpg"] = sends(answer(200, bytes(5_000_000)))
    with pytest.raises(httpx.HTTPError):
        through_guard(f"{site.url}/a.jpg", allow_private=True, max_bytes=1_000_000)


def test_an_answer_is_remembered_for_a_while_and_every_address_of_it_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def lookup(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        if host == "none.example":
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        addresses = ["8.8.8.8", "8.8.8.8", "8.8.4.4"] + ["10.0.0.1"] * (host == "mixed.example")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    async def resolved(resolver: Resolver, *hosts: str) -> list[list[str] | str]:
        found: list[list[str] | str] = []
        for host in hosts:
            try:
                found.append(await resolver.resolve(host))
            except Refused as refused:
                found.append(refused.reason)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    good = ["8.8.8.8", "8.8.4.4"]
    assert asyncio.run(resolved(Resolver(), *["a.example"] * 3, "b.example")) == [good] * 4
    assert asked == ["a.example", "b.example"]
    assert asyncio.run(resolved(Resolver(), *["mixed.example"] * 2, "none.example")) == ["private_address"] * 2 + [
        "dns"
    ]
    asked.clear()
    monkeypatch.setattr("omnisource.collect.addresses._DNS_TTL_S", -1.0)
    assert asyncio.run(resolved(Resolver(), *["a.example"] * 2)) == [good] * 2 and len(asked) == 2


def test_the_guard_asks_servers_in_their_own_form_and_ends_where_they_end() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall until the end")
        writer.close()

    async def answer_of(head: bytes) -> bytes:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, guard(Resolver(allow_private=True), 10_000) as url:
            host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}".encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
            writer.write(head.replace(b"HOST", host))
            writer.write_eof()
            found = await reader.read()
            writer.close()
        return found

    head = b"GET http://HOST/x?q=1 HTTP/1.1\r\nAccept: */*\r\nProxy-Authorization: secret\r\nKeep-Alive: 5\r\n"
    assert asyncio.run(answer_of(head + b"Connection: keep-alive\r\n\r\n")).endswith(b"\r\n\r\nall until the end")
    assert heads == [b"GET /x?q=1 HTTP/1.1\r\nAccept: */*\r\nConnection: close\r\n\r\n"]


def test_the_guard_goes_to_the_port_that_is_named_or_to_that_of_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    connect = asyncio.open_connection

    async def refuse(host: str, port: int) -> Any:
        asked.append((host, port))
        raise ConnectionRefusedError

    async def ask(*targets: str) -> None:
        async with guard(Resolver(allow_private=True), 10_000) as url:
            for target in targets:
                reader, writer = await connect("127.0.0.1", int(url.rsplit(":", 1)[1]))
                writer.write(f"{target} HTTP/1.1\r\n\r\n".encode())
                assert (await reader.read()).startswith(b"HTTP/1.1 502 ")
                writer.close()

    monkeypatch.setattr(asyncio, "open_connection", refuse)
    asyncio.run(ask("CONNECT 127.0.0.1:443", "CONNECT 127.0.0.1:8443", "GET http://127.0.0.1/x"))
    assert asked == [("127.0.0.1", port) for port in (443, 8443, 80)]
