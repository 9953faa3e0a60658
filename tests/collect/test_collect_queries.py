"""Queries, tags and time windows."""

import doctest
import importlib
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.collect.licences import normalise
from omnisource.collect.queries import Query, Window, queries, stem, tags, windows, words


@pytest.mark.parametrize("name", ["queries", "licences"])
def test_examples_in_the_documentation(name: str) -> None:
    tried = doctest.testmod(importlib.import_module(f"omnisource.collect.{name}"))
    assert tried.attempted > 0 and tried.failed == 0


def test_no_expansion_by_default() -> None:
    assert queries("riding_a_bike") == [Query("riding a bike", "riding_a_bike")]


def test_templates_and_variants() -> None:
    found = queries("serve", ["{name}", "tennis {name}"], {"serve": ["service", "Aufschlag"]})
    assert [query.text for query in found] == [
        "serve",
        "tennis serve",
        "service",
        "tennis service",
        "Aufschlag",
        "tennis Aufschlag",
    ]
    assert {query.label for query in found} == {"serve"}


def test_tags_by_permutation_and_stemming() -> None:
    assert tags("abseiling") == ["abseiling", "abseil"]
    assert tags("canoeing or kayaking") == ["canoeing", "canoe", "kayaking", "kayak"]
    assert tags("catching or throwing frisbee")[:2] == ["catchingfrisbee", "frisbeecatching"]
    assert tags("hurling (sport)") == ["hurling", "hurl"]
    assert len(tags("country line dancing")) == 12
    assert tags("exercising with an exercise ball")[0] == "exercisingexerciseball"
    assert tags("the") == ["the"]


def test_tags_of_kinetics_400(shared: Path) -> None:
    names = (shared / "data/lists/label_maps/kinetics_k400.txt").read_text().split("\n")
    found = {tag for name in names if name for tag in tags(name)}
    assert len(found) == 1595  # the paper, whose rule is not published, has 1,479


@pytest.mark.parametrize(
    ("word", "base"),
    {
        "running": "run",
        "making": "make",
        "throwing": "throw",
        "dancing": "dance",
        "eating": "eat",
        "answering": "answer",
        "changing": "change",
        "headbanging": "headbang",
        "snowkiting": "snowkite",
        "exercising": "exercise",
        "tying": "tie",
        "king": "king",
        "swing": "swing",
        "grass": "grass",
        "tennis": "tennis",
        "gymnastics": "gymnastics",
        "leaves": "leaf",
        "potatoes": "potato",
        "shoes": "shoe",
        "drums": "drum",
    }.items(),
)
def test_stems_are_words(word: str, base: str) -> None:
    assert stem(word) == base


@given(st.text(max_size=60))
def test_tags_of_anything_are_plain_words(name: str) -> None:
    for tag in tags(name):
        assert tag and not any(character.isspace() for character in tag)
    assert all(word == word.lower() for word in words(name))


@given(
    st.dates(date(2000, 1, 1), date(2030, 1, 1)),
    st.integers(0, 2000),
    st.sampled_from(["year", "month", "week"]),
)
def test_windows_cover_every_day_once(since: date, days: int, step: str) -> None:
    until = date.fromordinal(since.toordinal() + days)
    found = windows(since, until, step)  # type: ignore[arg-type]
    covered = [day for window in found if window for day in range(window.start.toordinal(), window.end.toordinal() + 1)]
    assert covered == list(range(since.toordinal(), until.toordinal() + 1))


def test_windows_follow_the_calendar() -> None:
    assert windows(date(2020, 3, 5), date(2021, 2, 1), "year") == [
        Window(date(2020, 3, 5), date(2020, 12, 31)),
        Window(date(2021, 1, 1), date(2021, 2, 1)),
    ]
    assert windows(date(2020, 3, 5), date(2021, 2, 1), "none") == [None]


@pytest.mark.parametrize(
    ("said", "name"),
    {
        "https://creativecommons.org/licenses/by-nc-sa/2.0/": "cc-by-nc-sa",
        "by-sa": "cc-by-sa",
        "CC BY-NC-ND 3.0": "cc-by-nc-nd",
        "Attribution-NonCommercial-ShareAlike License": "cc-by-nc-sa",
        "Attribution License": "cc-by",
        "https://creativecommons.org/publicdomain/zero/1.0/": "cc0",
        "cc0": "cc0",
        "http://creativecommons.org/publicdomain/mark/1.0/": "public-domain",
        "pdm": "public-domain",
        "Public domain": "public-domain",
        "No known copyright restrictions": "public-domain",
        "All Rights Reserved": "all-rights-reserved",
        "Baby licence 2": "baby-licence-2",
        "  ": None,
        None: None,
    }.items(),
)
def test_licences_have_one_spelling(said: str | None, name: str | None) -> None:
    assert normalise(said) == name
    assert normalise(name) == name
