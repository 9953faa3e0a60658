"""Which URLs and addresses may be asked at all.

Everything that names a server comes from the network (search results, redirects), so it may name the user's own
router or a cloud's metadata service. A URL is checked for its form, its host is resolved once, every address that
comes back is checked, and the connection is made to the checked address: a second look-up could give another answer
(DNS rebinding).
"""

import asyncio
import ipaddress
import re
import socket
import time
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL_LENGTH = 4096
_DNS_TTL_S = 60.0
_DNS_TIMEOUT_S = 20.0
_DNS_MOST_ENTRIES = 10_000
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(Exception):
    """A URL or an address that is not asked. `reason` is a short code, as it stands in the state table."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def canonical_url(url: str) -> str:
    """The one spelling under which a URL is remembered; refuses all that is not plain http or https.

    Lower-case scheme and host, international names in ASCII, numeric hosts in dotted form (`0x7f.1` is `127.0.0.1`), no
    default port, no fragment. Raises `Refused` with reason `bad_url`.
    """
    if len(url) > MAX_URL_LENGTH:
        raise Refused("bad_url", f"longer than {MAX_URL_LENGTH} characters")
    if re.search(r"[\x00-\x20\x7f\\\ud800-\udfff]", url.strip()):
        raise Refused("bad_url", "holds control characters, blanks, backslashes or halves of characters")
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        host = parts.hostname or ""
    except ValueError as error:
        raise Refused("bad_url", str(error)) from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise Refused("bad_url", f"scheme {parts.scheme or 'missing'!r}: only http and https are asked")
    if "@" in parts.netloc:
        raise Refused("bad_url", "holds a user name or password")
    host = _canonical_host(host)
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS[parts.scheme]:
        netloc += f":{port}"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return urlunsplit((parts.scheme, netloc, path, query, ""))


def join(base: str, location: str) -> str:
    """The canonical URL that a redirect from `base` to `location` leads to. Raises `Refused`."""
    try:
        return canonical_url(urljoin(base, location))
    except ValueError as error:  # half an IPv6 address
        raise Refused("bad_url", str(error)) from None


def host_of(url: str) -> str:
    """Host and port of a canonical URL: what limits, robots rules and connections are kept by."""
    return urlsplit(url).netloc


def _canonical_host(host: str) -> str:
    if not host:
        raise Refused("bad_url", "names no host")
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise Refused("bad_url", f"{host!r} is not an IPv6 address") from None
    try:
        ascii_host = host.encode("idna").decode("ascii").lower().rstrip(".")
    except UnicodeError:
        raise Refused("bad_url", f"{host!r} is not a host name") from None
    if not re.fullmatch(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", ascii_host):
        raise Refused("bad_url", f"{host!r} is not a host name")
    try:
        return socket.inet_ntoa(socket.inet_aton(ascii_host))  # 127.1, 0x7f000001, 2130706433, 0177.0.0.1
    except OSError:
        return ascii_host


def is_public(address: Address) -> bool:
    """Whether an address lies on the open internet: not private, loopback, link-local, multicast, reserved, nor an
    IPv6 form that carries such an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        if address.ipv4_mapped is not None or address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        embedded = [address.sixtofour, *(address.teredo or ())]
        if any(inner is not None and not is_public(inner) for inner in embedded):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class Resolver:
    """Looks hosts up and checks what comes back; remembers an answer for a minute.

    With `allow_private` every address passes: for servers of one's own, and for tests on loopback.
    """

    def __init__(self, allow_private: bool = False) -> None:
        self.allow_private = allow_private
        self._known: dict[str, tuple[float, list[str]]] = {}

    async def resolve(self, host: str) -> list[str]:
        """Addresses of `host`, all of them checked. Raises `Refused`: `private_address`, or `dns` if there are none."""
        known = self._known.get(host)
        if known and known[0] > time.monotonic():
            return known[1]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_DNS_TIMEOUT_S):
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise Refused("dns", f"{host}: {error or 'no answer in time'}") from None
        texts = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for text in texts:
            if not self.allow_private and not is_public(ipaddress.ip_address(text)):
                raise Refused("private_address", f"{host} is {text}, which is not on the open internet")
        if len(self._known) >= _DNS_MOST_ENTRIES:
            self._known.clear()
        self._known[host] = (time.monotonic() + _DNS_TTL_S, texts)
        return texts
