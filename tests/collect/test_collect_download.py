"""The downloader against a site on loopback that misbehaves."""

import asyncio
import errno
import hashlib
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from loopback_site import Request, Site, answer, closes, file, jpeg, sends

from omnisource.collect.sources import Candidate
from omnisource.collect.state import CollectState
from omnisource.collect.store import Store, StoreFull

Download = Callable[..., dict[str, tuple[str, str | None]]]


def media(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "media").rglob("*.*") if path.is_file())


def test_files_are_named_by_their_content(site: Site, download: Download, tmp_path: Path) -> None:
    bodies = [jpeg(seed) for seed in range(5)]
    site.routes = {f"/{i}.jpg": file(body) for i, body in enumerate(bodies)}
    fates = download([f"{site.url}/{i}.jpg" for i in range(5)])
    assert set(fates.values()) == {("done", None)}
    assert {path.name for path in media(tmp_path)} == {f"{hashlib.sha256(body).hexdigest()}.jpg" for body in bodies}
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.stem for path in media(tmp_path))


def test_the_same_content_lies_there_once(site: Site, download: Download, state: CollectState, tmp_path: Path) -> None:
    site.routes = {f"/{i}.jpg": file(jpeg(7)) for i in range(20)}
    assert set(download([f"{site.url}/{i}.jpg" for i in range(20)]).values()) == {("done", None)}
    assert len(media(tmp_path)) == 1
    assert state.rows("SELECT COUNT(DISTINCT sha256), COUNT(*) FROM urls") == [(1, 20)]


def test_a_published_digest_saves_the_download(site: Site, download: Download, state: CollectState) -> None:
    site.routes = {"/a.jpg": file(jpeg(1)), "/b.jpg": file(jpeg(1))}
    for name in ("a", "b"):
        state.add([Candidate(url=f"{site.url}/{name}.jpg", source="s", format="image", digest="sha1:1")])
        download()
    assert site.asked["/a.jpg"] == 1 and site.asked["/b.jpg"] == 0
    assert state.counts() == {"done": 2}


def test_spellings_of_one_url_are_asked_once(site: Site, download: Download) -> None:
    site.routes = {"/a.jpg": file(jpeg())}
    download([f"{site.url}/a.jpg", f"{site.url}/a.jpg#top", f"HTTP://127.0.0.1:{site.port}/a.jpg", f"{site.url}/a.jpg"])
    assert site.asked["/a.jpg"] == 1


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (sends(answer(404)), "http_404"),
        (sends(answer(500)), "http_500"),
        (sends(answer(200, b"<html>" * 200, Content_Type="image/jpeg")), "wrong_type"),
        (sends(answer(200, b"\0\0\0\x18ftypisom" + bytes(900))), "wrong_type"),  # a video where an image is due
        (sends(answer(200, b"")), "empty"),
        (sends(answer(200, jpeg(), Content_Encoding="gzip")), "encoded"),
        (sends(answer(302, Location="/a.jpg")), "redirects"),
        (sends(answer(302, Location="ftp://127.0.0.1/a.jpg")), "bad_url"),
        (sends(answer(302, Location="http://user:pw@127.0.0.1/a.jpg")), "bad_url"),
        (sends(answer(302)), "redirects"),
        (closes(answer(200, jpeg(), Content_Length="999999")), "reset"),
        (closes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), "reset"),
        (closes(b"garbage\r\n\r\n"), "reset"),
        (closes(), "reset"),
        (sends(answer(200, b"", Content_Length="99999999999")), "too_big"),
        (sends(answer(429, Retry_After="100000")), "http_429"),
        # What no URL, number or date can be made of is the answer's fault, and not the end of the run.
        (sends(answer(429, Retry_After="\N{SUPERSCRIPT TWO}")), "http_429"),
        (sends(answer(302, Location="http://[")), "bad_url"),
        (sends(answer(302, Location="http://xn--a-ecp.ru/")), "bad_url"),
    ],
)
def test_what_cannot_be_had_fails_with_its_reason(site: Site, download: Download, handler, reason: str) -> None:
    site.routes = {"/a.jpg": handler, "/good.jpg": file(jpeg())}
    fates = download([f"{site.url}/a.jpg", f"{site.url}/good.jpg"], attempts=2)
    assert fates[f"{site.url}/a.jpg"] == ("failed", reason)
    assert fates[f"{site.url}/good.jpg"] == ("done", None)


def test_a_body_without_end_is_cut_off(site: Site, download: Download, tmp_path: Path) -> None:
    sent = 0

    async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"\xff\xd8\xff" + bytes(65533)
        while not writer.is_closing():
            writer.write(b"10000\r\n" + chunk + b"\r\n")
            sent += len(chunk)
            await writer.drain()

    site.routes = {"/a.jpg": endless}
    assert download([f"{site.url}/a.jpg"], max_image_bytes=3 * 2**20) == {f"{site.url}/a.jpg": ("failed", "too_big")}
    assert sent < 32 * 2**20
    assert not list((tmp_path / "media/partial").iterdir())


def test_silence_and_dripping_are_given_up(site: Site, download: Download) -> None:
    async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def drips(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n\xff\xd8\xff")
        for _ in range(300):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.1)

    site.routes = {"/silent.jpg": silent, "/drips.jpg": drips}
    started = time.monotonic()
    fates = download([f"{site.url}/silent.jpg", f"{site.url}/drips.jpg"], attempts=1, timeout_s=0.5)
    assert fates == {f"{site.url}/silent.jpg": ("failed", "timeout"), f"{site.url}/drips.jpg": ("failed", "slow")}
    assert time.monotonic() - started < 10


def test_retry_after_is_obeyed_by_the_whole_host(site: Site, download: Download) -> None:
    times: list[float] = []

    async def busy(request: Request, writer: asyncio.StreamWriter) -> None:
        times.append(time.monotonic())
        writer.write(answer(429, Retry_After="1") if len(times) == 1 else answer(200, jpeg()))

    site.routes = {f"/{i}.jpg": busy for i in range(6)}
    fates = download([f"{site.url}/{i}.jpg" for i in range(6)], per_host=1)
    assert set(fates.values()) == {("done", None)}
    assert times[1] - times[0] >= 0.99


def test_bursts_of_server_errors_pass(site: Site, download: Download) -> None:
    site.routes = {f"/{i}.jpg": sends(answer(503), answer(500), answer(200, jpeg(i))) for i in range(8)}
    assert set(download([f"{site.url}/{i}.jpg" for i in range(8)]).values()) == {("done", None)}
    assert all(site.asked[f"/{i}.jpg"] == 3 for i in range(8))


def test_a_broken_download_continues_where_it_stopped(site: Site, download: Download, tmp_path: Path) -> None:
    body = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 12_000  # 3 MB
    good = file(body, "video/mp4", etag='"v1"')

    async def breaks_once(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.number == 1:
            whole = answer(200, body, ETag='"v1"')
            await closes(whole[:2_000_000])(request, writer)
        else:
            await good(request, writer)

    site.routes = {"/a.mp4": breaks_once}
    assert download([f"{site.url}/a.mp4"], format="clip") == {f"{site.url}/a.mp4": ("done", None)}
    start = int(site.log[-1].headers["range"].removeprefix("bytes=").rstrip("-"))
    assert start > 1_000_000 and site.log[-1].headers["if-range"] == '"v1"'
    assert media(tmp_path)[0].read_bytes() == body


def test_a_changed_file_is_not_patched_together(site: Site, download: Download, tmp_path: Path) -> None:
    old, new = (b"\0\0\0\x18ftypisom" + bytes([value]) * 3_000_000 for value in (1, 2))
    good = file(new, "video/mp4", etag='"v2"')

    async def changes(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.number == 1:
            await closes(answer(200, old, ETag='"v1"')[:2_000_000])(request, writer)
        else:
            await good(request, writer)

    site.routes = {"/a.mp4": changes}
    download([f"{site.url}/a.mp4"], format="clip")
    assert media(tmp_path)[0].read_bytes() == new


def test_refresh_asks_whether_a_file_changed(
    site: Site, download: Download, state: CollectState, tmp_path: Path
) -> None:
    site.routes = {"/a.jpg": file(jpeg(1)), "/b.jpg": file(jpeg(2))}
    download([f"{site.url}/a.jpg", f"{site.url}/b.jpg"])
    site.routes["/b.jpg"] = file(jpeg(3))
    assert state.refresh() == 2
    assert set(download().values()) == {("done", None)}
    again = {request.path: request.headers.get("if-none-match") for request in site.log[-2:]}
    assert all(again.values())
    hashes = dict(state.rows("SELECT url, sha256 FROM urls"))
    assert hashes[f"{site.url}/b.jpg"] == hashlib.sha256(jpeg(3)).hexdigest()
    assert hashes[f"{site.url}/a.jpg"] == hashlib.sha256(jpeg(1)).hexdigest()


def test_failed_urls_are_retried_only_when_asked(site: Site, download: Download, state: CollectState) -> None:
    site.routes = {"/a.jpg": sends(answer(404), answer(200, jpeg())), "/b.jpg": file(jpeg(1))}
    urls = [f"{site.url}/a.jpg", f"{site.url}/b.jpg"]
    download(urls)
    assert download(urls)[urls[0]] == ("failed", "http_404")
    assert state.retry_failed() == 1
    assert set(download().values()) == {("done", None)}
    assert (site.asked["/a.jpg"], site.asked["/b.jpg"]) == (2, 1)


def test_limits_of_a_host_hold(site: Site, download: Download) -> None:
    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        writer.write(answer(200, jpeg(request.number)))

    site.routes = {f"/{i}.jpg": slow for i in range(30)}
    download([f"{site.url}/{i}.jpg" for i in range(30)], per_host=3, robots=False)
    assert 2 <= site.most_at_once <= 3


def test_the_rate_of_a_host_holds(site: Site, download: Download) -> None:
    site.routes = {f"/{i}.jpg": file(jpeg(i)) for i in range(10)}
    started = time.monotonic()
    download([f"{site.url}/{i}.jpg" for i in range(10)], rate_per_host=20, robots=False)
    assert time.monotonic() - started >= 9 / 20


def test_a_dead_host_is_given_up_early(download: Download) -> None:
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
        fates = download([f"{dead}/{i}.jpg" for i in range(500)], robots=False, attempts=3, backoff_s=0.0)
    reasons = Counter(reason for _, reason in fates.values())
    assert set(reasons) == {"connect", "host_down"} and reasons["connect"] <= 12


def test_quota_stops_the_run_and_loses_nothing(
    site: Site, download: Download, state: CollectState, tmp_path: Path
) -> None:
    site.routes = {f"/{i}.jpg": file(jpeg(i)) for i in range(20)}
    size = len(jpeg(0))
    with pytest.raises(StoreFull, match="quota"):
        download([f"{site.url}/{i}.jpg" for i in range(20)], quota_bytes=5 * size)
    assert sum(path.stat().st_size for path in media(tmp_path)) <= 5 * size
    assert state.counts()["pending"] >= 15 and "failed" not in state.counts()
    assert set(download().values()) == {("done", None)}


def test_a_full_disk_stops_the_run_and_loses_nothing(
    site: Site, download: Download, state: CollectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(store: Store, partial: Path, path: Path) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    site.routes = {f"/{i}.jpg": file(jpeg(i)) for i in range(3)}
    with monkeypatch.context() as disk:
        disk.setattr(Store, "_move", full)
        with pytest.raises(StoreFull, match="quota"):
            download([f"{site.url}/{i}.jpg" for i in range(3)])
    assert state.counts() == {"pending": 3}
    assert set(download().values()) == {("done", None)}


def test_a_clock_that_was_set_back_delays_no_url(site: Site, download: Download, state: CollectState) -> None:
    site.routes = {"/a.jpg": file(jpeg())}
    url = f"{site.url}/a.jpg"
    state.add([Candidate(url=url, source="test", format="image")])
    state.postpone(1, "http_503", 1, time.time() + 1e8)
    assert download(max_wait_s=0.01) == {url: ("done", None)}


def test_a_head_that_drips_is_given_up(site: Site, download: Download) -> None:
    async def drips(request: Request, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    site.routes = {"/a.jpg": drips}
    url = f"{site.url}/a.jpg"
    assert download([url], timeout_s=0.1, attempts=1, robots=False) == {url: ("failed", "timeout")}


def test_answers_that_nobody_reads_free_their_connection(site: Site, download: Download) -> None:
    """Redirects and errors with bodies of their own, more of them than connections, one after the other."""
    body = b"moved " * 20_000
    site.routes = {f"/{i}.jpg": sends(answer(302, body, Location=f"/to/{i}.jpg")) for i in range(30)}
    site.routes |= {f"/to/{i}.jpg": file(jpeg(i)) for i in range(0, 30, 2)}
    site.routes |= {f"/to/{i}.jpg": sends(answer(404, body)) for i in range(1, 30, 2)}
    started = time.monotonic()
    fates = download([f"{site.url}/{i}.jpg" for i in range(30)], per_host=2)
    assert Counter(fates.values()) == {("done", None): 15, ("failed", "http_404"): 15}
    assert time.monotonic() - started < 10


def test_tls_certificates_are_checked(
    download: Download, state: CollectState, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    with Site(tls=context) as site:
        site.routes = {"/a.jpg": file(jpeg(1))}
        url = f"https://localhost:{site.port}/a.jpg"
        assert download([url], attempts=1, robots=False) == {url: ("failed", "connect")}
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        state.retry_failed()
        assert download(robots=False) == {url: ("done", None)}
        other = f"https://127.0.0.1:{site.port}/a.jpg"  # the certificate is for another name
        assert download([other], attempts=1, robots=False)[other] == ("failed", "connect")


def test_a_host_that_wants_peace_for_long_is_left_alone(site: Site, download: Download, state: CollectState) -> None:
    site.routes = {f"/{i}.jpg": sends(answer(429, Retry_After="100000")) for i in range(100)}
    fates = download([f"{site.url}/{i}.jpg" for i in range(100)], robots=False)
    assert set(fates.values()) == {("failed", "http_429")}
    assert len(site.log) <= 4
    site.routes = {f"/{i}.jpg": file(jpeg(i)) for i in range(100)}
    assert state.retry_failed() == 100
    assert set(download(robots=False).values()) == {("done", None)}


def test_partial_files_count_against_the_quota(site: Site, download: Download, tmp_path: Path) -> None:
    body = b"\0\0\0\x18ftypisom" + bytes(3_000_000)

    async def unannounced(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for start in range(0, len(body), 100_000):
            writer.write(body[start : start + 100_000] + request.path.encode())
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.close()

    site.routes = {f"/{i}.mp4": unannounced for i in range(4)}
    with pytest.raises(StoreFull):
        download([f"{site.url}/{i}.mp4" for i in range(4)], format="clip", robots=False, quota_bytes=5_000_000)
    files = [path for path in (tmp_path / "media").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 5_000_000


def test_what_a_killed_run_left_is_cleared(site: Site, download: Download, tmp_path: Path) -> None:
    partial = tmp_path / "media/partial"
    (partial / "tmpabc").mkdir(parents=True)
    (partial / "tmpabc/media").write_bytes(b"half")
    (partial / "0123.new").write_bytes(b"half")
    site.routes = {"/a.jpg": file(jpeg())}
    download([f"{site.url}/a.jpg"])
    assert list(partial.iterdir()) == []
