"""What the tests of the collection share."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from collecting import QUICK
from loopback_site import Site

from omnisource.collect.download import Downloader
from omnisource.collect.fetch import Fetcher
from omnisource.collect.sources import Candidate
from omnisource.collect.state import CollectState
from omnisource.collect.store import Store
from omnisource.recipe import Collect


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as served:
        yield served


@pytest.fixture
def state(tmp_path: Path) -> Iterator[CollectState]:
    opened = CollectState(tmp_path / "state.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def download(state: CollectState, tmp_path: Path) -> Callable[..., dict[str, tuple[str, str | None]]]:
    """Downloads URLs; returns (state, reason) by URL."""

    def run(
        urls: list[str] | None = None, format: str = "image", **settings: object
    ) -> dict[str, tuple[str, str | None]]:
        state.add(Candidate(url=url, source="test", format=format) for url in urls or [])
        merged = Collect(**{**QUICK, **settings})  # type: ignore[arg-type]

        async def work() -> None:
            fetcher = Fetcher(merged)
            store = Store(tmp_path / "media", 0, merged.quota_bytes, merged.min_free_bytes)
            try:
                await Downloader(fetcher, state, store).run()
            finally:
                await fetcher.aclose()

        asyncio.run(work())
        return {url: (kind, reason) for url, kind, reason in state.rows("SELECT url, state, reason FROM urls")}

    return run
