"""The state table by itself: which URLs are done, retried, refreshed, counted and forgotten."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omnisource.collect.candidate import Candidate
from omnisource.collect.state import CollectState, State


@pytest.fixture
def state(tmp_path: Path) -> Iterator[CollectState]:
    state = CollectState(tmp_path / "state.sqlite")
    yield state
    state.close()


def add(state: CollectState, *urls: str, **said: Any) -> list[int]:
    """The ids of URLs that were found just now."""
    given: dict[str, Any] = {"source": "photos", "format": "image", "label": "jump"} | said
    state.add(Candidate(url=url, **given) for url in urls)
    return [state.rows("SELECT id FROM urls WHERE url = ?", (url,))[0][0] for url in urls]


def finish(state: CollectState, url_id: int, content: str, to: State = "done", etag: str | None = None) -> None:
    state.finish(url_id, to, sha256=content, size=10, path=f"{content}.jpg", etag=etag, modified=None)


def states(state: CollectState) -> str:
    return "".join(row[0][0] for row in state.rows("SELECT state FROM urls ORDER BY id"))


def test_failed_urls_are_tried_again_but_for_those_refused_for_good(state: CollectState) -> None:
    ids = add(state, *(f"http://a.example/{name}" for name in "abcde"))
    for url_id, reason in zip(ids, ("http_500", "forgotten", "licence"), strict=False):
        state.fail(url_id, reason, 3)
    finish(state, ids[3], "one")
    assert state.reasons() == {"http_500": 1, "forgotten": 1, "licence": 1}
    assert state.counts() == {"failed": 3, "done": 1, "pending": 1}
    assert state.retry_failed() == 1 and states(state) == "pffdp"
    assert [(row.id, row.attempts) for row in state.pending("a.example", 0, 9)] == [(ids[0], 0), (ids[4], 0)]


def test_finished_urls_that_can_be_asked_for_changes_are_refreshed(state: CollectState) -> None:
    ids = add(state, *(f"http://a.example/{name}" for name in "abc"))
    finish(state, ids[0], "one", etag="1")
    finish(state, ids[1], "two")
    assert state.refresh() == 1 and states(state) == "pdp"
    state.unchanged(ids[0])
    assert states(state) == "ddp"


def test_all_urls_of_one_original_get_the_small_copy_and_no_others(state: CollectState) -> None:
    first, second, other = add(state, *(f"http://a.example/{name}" for name in "abc"))
    finish(state, first, "big", "fetched")
    finish(state, other, "other", "fetched")
    state.adopt(second, first, None, None)
    assert states(state) == "fff" and state.by_content("big") == first and state.by_content("none") is None
    assert sorted(state.fetched(9)) == ["big.jpg", "other.jpg"] and state.stored_bytes() == 20
    state.settle("big", sha256="small", size=4, path="small.jpg", problem=None)
    assert states(state) == "ddf" and state.fetched(9) == ["other.jpg"] and state.stored_bytes() == 14
    assert [row["id"] for row in state.first_finds(0, 9)] == [first], "one file, found twice"
    assert len(state.finds_of("small")) == 2 and state.by_content("big") == first
    state.keep_fetched()
    assert states(state) == "ddd" and state.fetched(9) == []


def test_a_content_that_a_service_names_is_loaded_once(state: CollectState) -> None:
    first, second = add(state, "http://a.example/a", "http://b.example/a", digest="sha1:x")
    (third,) = add(state, "http://c.example/a")
    rows = {row.id: row for host in "abc" for row in state.pending(f"{host}.example", 0, 9)}
    assert [state.twin(rows[url_id]) for url_id in (first, second, third)] == [None] * 3
    finish(state, first, "one")
    assert [state.twin(rows[url_id]) for url_id in (first, second, third)] == [None, first, None]


def test_urls_by_source_and_class(state: CollectState) -> None:
    assert (state.stored_bytes(), state.by_source(), state.counts()) == (0, [], {})
    ids = add(state, *(f"http://a.example/{name}" for name in "abc"))
    add(state, "http://a.example/a", "http://b.example/d", source="films", label="wave")
    finish(state, ids[0], "one")
    state.fail(ids[1], "http_404", 1)
    assert state.by_source() == [("films", 2, 1), ("photos", 3, 2)]
    assert state.by_source(classes=True) == [("films", "wave", 2, 1, 0), ("photos", "jump", 3, 2, 1)]
    assert sorted(state.hosts([], 9)) == ["a.example", "b.example"]
    assert state.hosts(["a.example"], 9) == ["b.example"]
    state.abandon("b.example", "unreachable")
    assert state.hosts([], 9) == ["a.example"] and states(state) == "dfpf"


def test_what_is_to_be_forgotten_is_found_however_it_is_written(state: CollectState) -> None:
    first, second = add(state, "http://a.example:81/a", "http://a.example/b", author=" Élan ")
    (third,) = add(state, "http://a.example.org/c", author="other")
    for url_id, content in ((first, "one"), (second, "two"), (third, "one")):
        finish(state, url_id, content)
    of_author = state.matching("author", "éLAN")
    assert (of_author.urls, of_author.paths) == ([first, second, third], ["one.jpg", "two.jpg"]), (
        "third is first's twin"
    )
    assert state.matching("host", "a.example").urls == [first, second, third]
    assert state.matching("host", "example").urls == [] == state.matching("author", "elan").urls
    assert state.matching("url", "http://a.example/b").urls == [second]
    assert state.matching("sha256", "two").contents == ["two"]
    state.remember_forgotten("author", "élan")
    state.remember_forgotten("host", "b.example")
    new = [
        Candidate("http://c.example/x", "photos", "image", author="ÉLAN"),
        Candidate("http://b.example:9/", "s", "image"),
    ]
    assert state.add(new) == (0, 2) and state.add([Candidate("http://c.example/x", "photos", "image")]) == (1, 0)
    state.remove([first, second])
    assert len(state.rows("SELECT * FROM finds")) == 2 and states(state) == "dp"
