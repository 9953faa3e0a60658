"""Fetching one file from the web for `omnisource predict`, by the rules of the collection.

An address, and whatever it redirects to, is resolved once, checked and connected to as it was checked. One that is not
on the open internet is asked only by those who say so. Size and time are bounded. robots.txt is for crawlers: a person
who names one file is none.
"""

import asyncio
from pathlib import Path

from omnisource import __version__
from omnisource.collect import Fetcher, FetchError, Refused
from omnisource.errors import UserError
from omnisource.recipe import Collect

_MOST_S = 3600.0  # for one file, whatever the server does


def fetch(url: str, path: Path, *, max_bytes: int, allow_private: bool, most_s: float = _MOST_S) -> None:
    """Writes what lies at `url` to `path`.

    Raises:
        UserError: it cannot be fetched whole, is larger than `max_bytes`, takes longer than `most_s` seconds, or lies
            at a private address that is not allowed.
    """
    settings = Collect(
        allow_private=allow_private,
        robots=False,
        rate_per_host=0,
        timeout_s=30.0,
        user_agent=f"omnisource/{__version__}",
    )
    try:
        asyncio.run(_fetch(settings, url, path, max_bytes, most_s))
    except Refused as error:
        cure = "--allow-private asks it all the same" if error.reason == "private_address" else "mend the address"
        raise UserError(f"{url}: cannot be fetched ({error}); {cure}") from None
    except FetchError as error:
        raise UserError(f"{url}: cannot be fetched ({error}); download it yourself and give the file") from None
    except TimeoutError:
        raise UserError(f"{url}: not there after {most_s:g} s; download it yourself and give the file") from None


async def _fetch(settings: Collect, url: str, path: Path, max_bytes: int, most_s: float) -> None:
    fetcher = Fetcher(settings)
    try:
        async with asyncio.timeout(most_s), fetcher.get(url) as answer:
            if answer.status != 200:  # a part, or nothing new: neither was asked for
                raise FetchError(f"http_{answer.status}")
            with path.open("wb") as file:
                async for chunk in answer.chunks:
                    file.write(chunk)
                    if file.tell() > max_bytes:
                        raise UserError(f"{url}: more than {max_bytes} bytes; download and cut it, or raise the limit")
    finally:
        await fetcher.aclose()
