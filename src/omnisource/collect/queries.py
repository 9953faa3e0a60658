"""From class names to search queries, tags and time windows.

The paper uses the class names as they are, without expansion, and asks again per time period where a service caps its
results; on tag-based services it permutes and stems the words of a class name (section 3.1: 1,479 tags for
Kinetics-400). The paper does not give the rule; the one below is ours.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

Slice = Literal["none", "year", "month", "week"]

# Words that carry no meaning in a tag.
_FUNCTION_WORDS = frozenset(
    re.findall(r"\w+", "a an and at by for from in into not of on or out person persons s the through to up with")
)
# Tags of names with more content words keep the word order: five words have 120 permutations, and nobody writes those.
_MOST_PERMUTED_WORDS = 3
# Words that the spelling rules below would get wrong.
_IRREGULAR = {
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "cookies": "cookie",
    "tasting": "taste",
    "pasting": "paste",
}
_UNCHANGED = frozenset({"something", "nothing", "anything", "everything", "news", "clothes", "christmas"})
# Endings that an English base form has only before a silent e: danc-e, driv-e, exercis-e, celebrat-e, juggl-e, chang-e.
_SILENT_E = re.compile(r"([vcuz]|[aeiou]s|(?<!e)at|[bcdfgkptz]l|ag|dg|(ch|rr)ang|[^aeiou]lid|kit|lin|mobil)$")


@dataclass(frozen=True)
class Query:
    """One question to a source: the text asked for, and the class that its answers are filed under."""

    text: str
    label: str


@dataclass(frozen=True)
class Window:
    """A time period, both days included."""

    start: date
    end: date

    def __str__(self) -> str:
        return f"{self.start}..{self.end}"


def words(name: str) -> list[str]:
    """The lower-case words of a class name: splits spaces, underscores, punctuation and CamelCase.

    >>> words("ApplyEyeMakeup"), words("brush_hair"), words("shooting goal (soccer)")
    (['apply', 'eye', 'makeup'], ['brush', 'hair'], ['shooting', 'goal', 'soccer'])
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("'", "").replace("’", ""))
    return re.findall(r"[^\W_]+", spaced.lower())


def queries(
    label: str, templates: Sequence[str] = ("{name}",), variants: Mapping[str, Sequence[str]] | None = None
) -> list[Query]:
    """Search queries of one class: every template filled with the name and with each of its variants, none twice.

    `variants` maps a class name to other ways to say it, such as its translations.
    """
    names = [" ".join(words(label)), *(variants or {}).get(label, ())]
    texts = dict.fromkeys(template.format(name=name) for name in names for template in templates)
    return [Query(text, label) for text in texts]


def tags(label: str) -> list[str]:
    """Tags of one class name, for services that are asked by tag.

    Function words and what stands in brackets are left out, "a or b" is either of both, and the words are joined in
    every order (up to three words), as they are and stemmed.

    >>> tags("riding a bike")
    ['ridingbike', 'bikeriding', 'ridebike', 'bikeride']
    """
    found: dict[str, None] = {}
    for phrase in _alternatives(words(re.sub(r"\(.*?\)", " ", label)) or words(label)):
        content = [word for word in phrase if word not in _FUNCTION_WORDS] or phrase
        for form in (content, [stem(word) for word in content]):
            orders = itertools.permutations(form) if len(form) <= _MOST_PERMUTED_WORDS else (form,)
            found.update(dict.fromkeys("".join(order) for order in orders))
    return [tag for tag in found if tag]


def _alternatives(phrase: list[str]) -> list[list[str]]:
    """Resolves "or" between two words: [catching or throwing baseball] -> [catching baseball], [throwing baseball]."""
    place = phrase.index("or") if "or" in phrase else 0
    if not 0 < place < len(phrase) - 1:
        return [phrase]
    left = phrase[:place] + phrase[place + 2 :]
    right = phrase[: place - 1] + phrase[place + 1 :]
    return [*_alternatives(left), *_alternatives(right)]


def stem(word: str) -> str:
    """The base form of an English word: takes off -ing and the plural, and mends the spelling.

    Porter's step 1 (An algorithm for suffix stripping, 1980) with the silent e put back, since a tag must be a word
    that people write: "dancing" gives "dance", where the full algorithm gives "danc".

    >>> [stem(w) for w in "riding swimming juggling pressing opening ring eggs dishes knives berries".split()]
    ['ride', 'swim', 'juggle', 'press', 'open', 'ring', 'egg', 'dish', 'knife', 'berry']
    """
    if word in _IRREGULAR or word in _UNCHANGED:
        return _IRREGULAR.get(word, word)
    if word.endswith("ing") and re.search(r"[aeiouy]", word[:-3]):
        return _mend(word[:-3])
    if word.endswith("s") and not word.endswith(("ss", "us", "is", "ics")) and len(word) > 3:
        return _singular(word)
    return word


def _mend(base: str) -> str:
    """Spells the base of an -ing form: running -> runn -> run, riding -> rid -> ride, dancing -> danc -> dance."""
    if base[-2:-1] == base[-1:] and base[-1] not in "aeiouflsz":
        return base[:-1]
    one_syllable = re.fullmatch(r"[^aeiouy]*[aeiouy][^aeiouwxy]", base)
    return base + "e" if one_syllable or _SILENT_E.search(base) else base


def _singular(word: str) -> str:
    if re.search(r"(sh|ch|ss|x|z|to)es$", word):
        return word[:-2]
    if word.endswith("ves"):
        return word[:-3] + ("fe" if word[-4] == "i" else "f")
    return word[:-3] + "y" if word.endswith("ies") else word[:-1]


def windows(since: date, until: date, step: Slice) -> list[Window | None]:
    """Cuts the days from `since` to `until` into calendar years, months or weeks; `none` asks once, at any time."""
    if step == "none":
        return [None]
    cuts = [day for day in _starts(since, until, step) if day > since]
    return [
        Window(start, end - timedelta(days=1))
        for start, end in itertools.pairwise([since, *cuts, until + timedelta(days=1)])
        if start < end
    ]


def _starts(since: date, until: date, step: Slice) -> Iterator[date]:
    """The first days of the years, months or weeks between two days."""
    if step == "week":
        yield from (since + timedelta(days=days) for days in range(0, (until - since).days + 1, 7))
        return
    for year in range(since.year, until.year + 1):
        for month in range(1, 13) if step == "month" else (1,):
            if since <= date(year, month, 1) <= until:
                yield date(year, month, 1)
