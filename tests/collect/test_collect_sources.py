"""Every source against a site on loopback that answers in the documented form of its service."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import services
from collecting import QUICK
from loopback_site import Site, answer, file, jpeg, sends

from omnisource.collect.candidate import Candidate, Source
from omnisource.collect.fetch import Fetcher, FetchError
from omnisource.collect.keys import Keys
from omnisource.collect.queries import Query, Window
from omnisource.collect.sources import open_source
from omnisource.collect.state import CollectState
from omnisource.collect.web import Web
from omnisource.errors import UserError
from omnisource.recipe import Collect, CollectSource

QUERY = Query("playing tennis", "tennis")


@contextmanager
def web(**settings: object) -> Iterator[Web]:
    """The network as sources see it, its event loop in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> Fetcher:
        return Fetcher(Collect(**{**QUICK, **settings}))  # type: ignore[arg-type]

    fetcher = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield Web(fetcher, loop, Keys(), threading.Event())
    finally:
        asyncio.run_coroutine_threadsafe(fetcher.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def search(
    settings: CollectSource,
    limit: int = 1000,
    window: Window | None = None,
    query: Query | None = QUERY,
    **more: object,
) -> list[Candidate]:
    with web(**more) as network:
        source: Source = open_source(settings, network, Path)
        return list(source.search(query, window, limit))


@pytest.fixture
def video(tmp_path: Path) -> bytes:
    path = tmp_path / "made.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(20):
            picture = np.full((48, 64, 3), i * 10, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def test_openverse(site: Site) -> None:
    found = search(CollectSource(name="openverse", endpoint=services.openverse(site)))
    assert [candidate.url for candidate in found] == [f"{site.url}/openverse/{i}.jpg" for i in range(services.COUNT)]
    assert found[1] == Candidate(
        url=f"{site.url}/openverse/1.jpg",
        source="openverse",
        format="image",
        label="tennis",
        query="playing tennis",
        page_url=f"{site.url}/page/1",
        title="playing tennis 1",
        author="author 1",
        licence="cc-by-sa",
    )
    assert found[0].licence == "cc0"
    assert len(site.log) == 3
    assert len(search(CollectSource(name="openverse", endpoint=f"{site.url}/v1/images/"), limit=7)) == 7


def test_commons(site: Site) -> None:
    endpoint = services.commons(site)
    found = search(CollectSource(name="commons", endpoint=endpoint), limit=30)
    assert [candidate.url for candidate in found] == [f"{site.url}/commons/{i}.jpg" for i in range(30)]
    assert (found[2].author, found[2].licence, found[2].digest) == ("Jane & 2", "cc-by-sa", f"sha1:{2:040x}")
    assert len(search(CollectSource(name="commons", endpoint=endpoint))) == services.COUNT
    assert search(CollectSource(name="commons", endpoint=endpoint, format="clip"), limit=1)[0].format == "clip"
    assert site.log[-1].query["gsrsearch"] == "filetype:video playing tennis"


def test_archive_takes_the_small_derivative(site: Site, video: bytes) -> None:
    settings = CollectSource(name="archive", endpoint=services.archive(site, video))
    found = search(settings, window=Window(date(2020, 1, 1), date(2020, 12, 31)))
    assert [candidate.url for candidate in found] == [f"{site.url}/download/film{i}/film.mp4" for i in (1, 2)]
    assert (found[0].duration_s, found[0].licence, found[0].author) == (93.5, "public-domain", "A, B")
    assert "publicdate:[2020-01-01 TO 2020-12-31]" in site.log[0].query["q"]


def test_pexels_needs_a_key_and_tells_nobody_else(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = CollectSource(name="pexels", endpoint=services.pexels(site))
    with pytest.raises(UserError, match="OMNISOURCE_PEXELS_KEY"):
        search(settings)
    monkeypatch.setenv("OMNISOURCE_PEXELS_KEY", "secret-pexels-key")
    found = search(settings)
    assert len(found) == services.COUNT and found[0].url == f"{site.url}/pexels/0.jpg"
    films = search(CollectSource(name="pexels", endpoint=site.url, format="clip"))
    assert [(film.url, film.duration_s) for film in films] == [(f"{site.url}/v/sd.mp4", 12)]


def test_a_key_does_not_travel_with_a_redirect(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNISOURCE_PEXELS_KEY", "secret-pexels-key")
    with Site() as elsewhere:
        elsewhere.routes["/v1/search"] = sends(answer(200, b'{"photos": []}'))
        site.routes["/v1/search"] = sends(answer(302, Location=f"{elsewhere.url}/v1/search"))
        assert search(CollectSource(name="pexels", endpoint=site.url)) == []
    assert site.log[0].headers["authorization"] == "secret-pexels-key"
    assert "authorization" not in elsewhere.log[0].headers


def test_flickr(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = CollectSource(name="flickr", endpoint=services.flickr(site))
    monkeypatch.setenv("OMNISOURCE_FLICKR_KEY", "wrong")
    with pytest.raises(FetchError, match="Invalid API Key"):
        search(settings)
    monkeypatch.setenv("OMNISOURCE_FLICKR_KEY", "secret-flickr-key")
    found = search(settings, window=Window(date(2020, 1, 1), date(2020, 1, 31)))
    assert len(found) == services.COUNT
    assert [candidate.licence for candidate in found[:2]] == ["all-rights-reserved", "cc-by"]
    assert site.log[-1].query["min_upload_date"] == "2020-01-01 00:00:00"
    search(CollectSource(name="flickr", endpoint=settings.endpoint, tags=True), limit=1)
    assert site.log[-1].query["tags"] == "playing tennis"


@pytest.mark.parametrize("name", ["google", "bing", "baidu"])
def test_image_search_engines(site: Site, name: str) -> None:
    settings = CollectSource(name=name, endpoint=services.engine(site, name))  # type: ignore[arg-type]
    found = search(settings)
    assert [candidate.url for candidate in found] == [f"{site.url}/{name}/{i}.jpg" for i in range(services.COUNT)]
    asked = next(request for request in site.log if request.path != "/robots.txt")
    assert "playing tennis" in asked.query.values()
    assert len(search(settings, limit=10)) == 10


def test_google_asks_for_a_period(site: Site) -> None:
    search(
        CollectSource(name="google", endpoint=services.engine(site, "google")),
        window=Window(date(2020, 1, 1), date(2020, 1, 31)),
    )
    assert site.log[-1].query["tbs"] == "cdr:1,cd_min:01/01/2020,cd_max:01/31/2020"


def test_search_pages_obey_robots_unless_the_source_says_otherwise(site: Site) -> None:
    endpoint = services.engine(site, "google")
    site.routes["/robots.txt"] = sends(answer(200, b"User-agent: *\nDisallow: /search\n"))
    with pytest.raises(FetchError, match="robots"):
        search(CollectSource(name="google", endpoint=endpoint))
    assert site.asked["/search"] == 0
    assert search(CollectSource(name="google", endpoint=endpoint, robots=False), limit=1)


def test_url_lists(tmp_path: Path) -> None:
    text, table, parquet = tmp_path / "list.txt", tmp_path / "list.csv", tmp_path / "list.parquet"
    text.write_text("# comment\nhttp://a.example/1.jpg\n\nhttp://a.example/2.jpg\n")
    table.write_text("url,label,license,format\nhttp://a.example/1.mp4,serve,CC BY 2.0,clip\n,serve,,\n")
    pq.write_table(pa.table({"image_url": ["http://a.example/1.jpg"] * 3, "caption": ["a serve"] * 3}), parquet)
    assert [one.url for one in search(CollectSource(name="urls", argument=str(text)), query=None)] == [
        "http://a.example/1.jpg",
        "http://a.example/2.jpg",
    ]
    (clip,) = search(CollectSource(name="urls", argument=str(table)), query=None)
    assert (clip.format, clip.label, clip.licence) == ("clip", "serve", "cc-by")
    assert [one.query for one in search(CollectSource(name="urls", argument=str(parquet)), query=None)] == [
        "a serve"
    ] * 3
    table.write_text("place,label\nx,y\n")
    pq.write_table(pa.table({"place": ["x"]}), parquet)
    for path in (table, parquet):
        with pytest.raises(UserError, match="no column 'url'"):
            search(CollectSource(name="urls", argument=str(path)), query=None)


def test_a_byte_that_is_no_text_ends_no_list(tmp_path: Path) -> None:
    text, table = tmp_path / "list.txt", tmp_path / "list.csv"
    text.write_bytes(b"http://a.example/\xff.jpg\nhttp://a.example/2.jpg\n")
    table.write_bytes(b"url,caption\nhttp://a.example/1.jpg,caf\xe9\nhttp://a.example/2.jpg,serve\n")
    for path in (text, table):
        _, second = search(CollectSource(name="urls", argument=str(path)), query=None)
        assert second.url == "http://a.example/2.jpg"
        path.write_bytes("url\nhttp://a.example/1.jpg\n".encode("utf-16"))
        with pytest.raises(UserError, match=r"list of URLs|no column"):
            search(CollectSource(name="urls", argument=str(path)), query=None)


def test_folders_are_told_by_content(tmp_path: Path, video: bytes) -> None:
    (tmp_path / "media/serve").mkdir(parents=True)
    (tmp_path / "media/serve/a.mp4").write_bytes(video)
    (tmp_path / "media/serve/b.mp4").write_bytes(jpeg())
    (tmp_path / "media/serve/notes.jpg").write_text("not a picture")
    (tmp_path / "media/serve/empty.jpg").touch()
    (tmp_path / "media/.cache").mkdir()
    (tmp_path / "media/.cache/c.jpg").write_bytes(jpeg())
    Path(os.fsdecode(os.fsencode(tmp_path / "media") + b"/bad \xff.jpg")).write_bytes(jpeg())  # no table can name it
    found = search(CollectSource(name="folder", argument=str(tmp_path / "media")), query=None)
    assert [(Path(one.url).name, one.format, one.label) for one in found] == [
        ("a.mp4", "clip", "serve"),
        ("b.mp4", "image", "serve"),
    ]


def test_gallery_dl_lists_a_direct_link_through_the_guard(site: Site) -> None:
    site.routes["/tags/playing tennis.jpg"] = site.routes["/tags/playing%20tennis.jpg"] = file(jpeg())
    settings = CollectSource(name="gallery-dl", argument=f"{site.url}/tags/{{query}}.jpg")
    (found,) = search(settings)
    assert (found.url, found.format) == (f"{site.url}/tags/playing%20tennis.jpg", "image")
    with pytest.raises(UserError, match=r"\{query\}"):
        search(CollectSource(name="gallery-dl", argument="https://example.org/"))


def test_yt_dlp_finds_the_video_of_a_page_through_the_guard(site: Site, video: bytes) -> None:
    page = f'<html><head><title>Serve</title></head><body><video src="{site.url}/v.mp4"></video></body></html>'
    site.routes |= {
        "/watch/playing%20tennis": sends(answer(200, page.encode(), Content_Type="text/html")),
        "/v.mp4": file(video, "video/mp4"),
    }
    settings = CollectSource(name="yt-dlp", argument=f"{site.url}/watch/{{query}}", format="clip")
    (found,) = search(settings)
    assert (found.fetcher, found.format, found.url) == ("yt-dlp", "clip", f"{site.url}/watch/playing%20tennis")


def test_tools_cannot_reach_private_addresses(site: Site) -> None:
    settings = CollectSource(name="yt-dlp", argument=f"{site.url}/watch/{{query}}", robots=False)
    with pytest.raises(FetchError, match="tool_failed"):
        search(settings, allow_private=False)
    assert site.log == []


def test_keys_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(json.dumps({"pexels": "one"}))
    assert Keys(path).get("pexels") == "one"
    path.write_text("- one")
    with pytest.raises(UserError, match="key file"):
        Keys(path)


def test_answers_that_are_no_answers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for body in (b"<html>", b"{}", b'{"results": 3}', b"[]"):
        site.routes["/v1/images/"] = sends(answer(200, body))
        with pytest.raises((FetchError, KeyError, TypeError)):
            search(CollectSource(name="openverse", endpoint=f"{site.url}/v1/images/"))


@pytest.mark.parametrize(
    ("name", "calls", "urls", "say"),
    [
        ("flickr", 2, [], lambda url, _: {"stat": "ok", "licenses": {"license": [{"id": 0}]}, "photos": _NO_PHOTOS}),
        ("commons", 2, [], lambda url, _: {"continue": {"gsroffset": 50}}),
        ("pexels", 1, ["v"], lambda url, _: {"videos": [{"video_files": []}, {"video_files": [{"link": "v"}]}]}),
        ("archive", 3, ["https://archive.org/download/b/c.mp4"], lambda url, _: _an_item_is_shut(url)),
    ],
)
def test_a_search_ends_and_one_bad_result_does_not_end_it(
    name: str, calls: int, urls: list[str], say: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def api(self: Web, url: str, parameters: dict[str, object], headers: object = None) -> Any:
        asked.append(url)
        assert len(asked) < 10
        return say(url, parameters)

    monkeypatch.setattr(Web, "api", api)
    monkeypatch.setenv(f"OMNISOURCE_{name.upper()}_KEY", "key")
    form = {"format": "clip"} if name == "pexels" else {}
    assert [one.url for one in search(CollectSource(name=name, **form))] == urls and len(asked) == calls


_NO_PHOTOS = {"photo": [], "pages": 10**9}


def _an_item_is_shut(url: str) -> Any:
    if "advancedsearch" in url:
        return {"response": {"docs": [{"identifier": "a"}, {"identifier": "b"}], "numFound": 2}}
    if url.endswith("/a"):
        raise FetchError("http_404")
    return {"files": [{"format": "h.264", "name": "c.mp4"}]}


def test_whatever_a_service_says_of_a_file_is_stored_as_text(tmp_path: Path) -> None:
    state = CollectState(tmp_path / "state.sqlite")
    said: list[Any] = ["half \ud800", {"a": 1}, 10**30, ["x"], "x" * 100_000]
    found = [Candidate(f"http://a.example/{n}", "s", "image", title=one, author=one) for n, one in enumerate(said)]
    odd: list[Any] = ["http://a.example/\ud800", {"href": "x"}]
    assert state.add([*found, *(Candidate(url, "s", "image") for url in odd)]) == (5, 2)
    assert all(isinstance(author, str) for (author,) in state.rows("SELECT author FROM finds"))
    state.close()
