"""robots.txt."""

from collections.abc import Callable

import pytest
from loopback_site import Site, answer, file, jpeg, sends

Download = Callable[..., dict[str, tuple[str, str | None]]]


def fates(site: Site, download: Download, **settings: object) -> dict[str, str | None]:
    site.routes |= {"/a.jpg": file(jpeg(1)), "/private/b.jpg": file(jpeg(2))}
    found = download([f"{site.url}/a.jpg", f"{site.url}/private/b.jpg"], **settings)
    return {url.removeprefix(site.url): reason for url, (_, reason) in found.items()}


def test_rules_are_obeyed_and_read_once(site: Site, download: Download) -> None:
    site.routes["/robots.txt"] = sends(answer(200, b"User-agent: *\nDisallow: /private/\n"))
    assert fates(site, download) == {"/a.jpg": None, "/private/b.jpg": "robots"}
    assert site.asked["/robots.txt"] == 1 and site.asked["/private/b.jpg"] == 0


def test_rules_for_our_name_win(site: Site, download: Download) -> None:
    rules = b"User-agent: omnisource\nDisallow: /a\n\nUser-agent: *\nDisallow: /private/\n"
    site.routes["/robots.txt"] = sends(answer(200, rules))
    assert fates(site, download) == {"/a.jpg": "robots", "/private/b.jpg": None}


def test_the_user_may_overrule_them(site: Site, download: Download) -> None:
    site.routes["/robots.txt"] = sends(answer(200, b"User-agent: *\nDisallow: /\n"))
    assert fates(site, download, robots=False) == {"/a.jpg": None, "/private/b.jpg": None}
    assert site.asked["/robots.txt"] == 0


@pytest.mark.parametrize("status", [404, 401, 410])
def test_no_rules_allow_everything(site: Site, download: Download, status: int) -> None:
    site.routes["/robots.txt"] = sends(answer(status))
    assert fates(site, download) == {"/a.jpg": None, "/private/b.jpg": None}


def test_rules_that_cannot_be_read_forbid_everything_for_now(site: Site, download: Download) -> None:
    site.routes["/robots.txt"] = sends(answer(500))
    assert set(fates(site, download, attempts=2).values()) == {"robots_unreachable"}
    assert site.asked["/a.jpg"] == 0


def test_rules_without_end_are_cut_off(site: Site, download: Download) -> None:
    site.routes["/robots.txt"] = sends(answer(200, b"User-agent: *\nDisallow: /private/\n" + b"# x\n" * 1_000_000))
    assert fates(site, download) == {"/a.jpg": None, "/private/b.jpg": "robots"}


def test_rules_hold_after_a_redirect_to_another_host(site: Site, download: Download) -> None:
    with Site() as other:
        other.routes = {"/robots.txt": sends(answer(200, b"User-agent: *\nDisallow: /\n")), "/c.jpg": file(jpeg(3))}
        site.routes["/go.jpg"] = sends(answer(301, Location=f"{other.url}/c.jpg"))
        url = f"{site.url}/go.jpg"
        assert download([url]) == {url: ("failed", "robots")}
        assert other.asked["/c.jpg"] == 0


def test_a_crawl_delay_is_kept(site: Site, download: Download) -> None:
    import time

    site.routes["/robots.txt"] = sends(answer(200, b"User-agent: *\nCrawl-delay: 0.3\n"))
    site.routes |= {f"/{i}.jpg": file(jpeg(i)) for i in range(4)}
    started = time.monotonic()
    download([f"{site.url}/{i}.jpg" for i in range(4)])
    assert time.monotonic() - started >= 0.9


def test_a_host_that_wants_more_peace_than_we_have_is_left(site: Site, download: Download) -> None:
    site.routes["/robots.txt"] = sends(answer(200, b"User-agent: *\nCrawl-delay: 1000000\n"))
    assert fates(site, download) == dict.fromkeys(("/a.jpg", "/private/b.jpg"), "crawl_delay")
