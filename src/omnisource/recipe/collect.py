"""`collect:` what is asked for on the web, whom, how politely, and what is kept of it (paper, section 3.1)."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from omnisource.recipe.base import Bytes, Count, Pause, Seconds, Section, Weight

SourceName = Literal[
    "archive",
    "baidu",
    "bing",
    "commons",
    "flickr",
    "folder",
    "gallery-dl",
    "google",
    "openverse",
    "pexels",
    "urls",
    "yt-dlp",
]
Format = Literal["image", "clip", "untrimmed"]
MIB = 2**20


class CollectSource(Section):
    """One place to collect from; `urls:list.txt` is short for `{name: urls, argument: list.txt}`."""

    name: SourceName  # one of those in docs/collect.md
    argument: str = ""  # what the source needs to know: a list, a folder, a search page with {query} in it
    # image, clip or untrimmed: what is asked for, where the source has several; what `urls` and `folder` hold
    format: Format | None = None
    into: str | None = None  # the recipe's source (`layout: collected`) that gets the files; null: by format
    limit: Count = 500  # most results of one query in one time period
    tags: bool = False  # ask by tags made from the class name instead of the name
    robots: bool | None = None  # overrules collect.robots for the search pages of this source
    endpoint: str | None = None  # another address of the same service, such as a mirror of one's own

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            name, _, argument = value.partition(":")
            return {"name": name.strip(), "argument": argument.strip()}
        return value

    @property
    def label(self) -> str:
        """How the source is called in tables and reports."""
        told = [self.name, self.argument, self.format, "tags" if self.tags else None]
        return ":".join(part for part in told if part)


class Collect(Section):
    """What to ask for, whom, how politely, and what to keep of it."""

    sources: list[CollectSource] = []
    templates: Annotated[list[str], Field(min_length=1)] = ["{name}"]  # queries of a class; {name} is its name
    variants: dict[str, list[str]] = {}  # other names of a class, such as translations
    since: date = date(2010, 1, 1)  # first day asked for, where `slice` is set
    until: date | None = None  # last day asked for; null: today
    # Sources that know time periods are asked once for each of them, which beats the cap on their results.
    slice: Literal["none", "year", "month", "week"] = "none"
    licence: list[str] = []  # keep only these (cc0, cc-by, ...); empty: all, unknown ones included

    user_agent: Annotated[str, Field(min_length=3, max_length=200, pattern=r"^[\x20-\x7e]+$")] = (
        "omnisource (research crawler; set collect.user_agent to name yourself)"
    )
    robots: bool = True  # obey robots.txt
    allow_private: bool = False  # ask private, loopback and link-local addresses too
    hosts: Annotated[int, Field(ge=1, le=1000)] = 64  # worked at the same time
    per_host: Annotated[int, Field(ge=1, le=64)] = 4  # requests to one host at the same time
    rate_per_host: Weight = 5.0  # most requests a second to one host; 0: no limit
    attempts: Annotated[int, Field(ge=1, le=20)] = 4  # tries of one URL before it counts as failed
    backoff_s: Pause = 2.0  # wait before the second try; doubles with each
    max_wait_s: Pause = 600.0  # longest wait that a server may ask for; beyond it the URL fails
    timeout_s: Seconds = 20.0  # longest silence of a server
    slowest_bytes_per_s: Bytes = 4096  # slower answers are given up after timeout_s

    max_image_bytes: Count = 32 * MIB  # larger files are given up
    max_clip_bytes: Count = 128 * MIB
    max_untrimmed_bytes: Count = 2048 * MIB
    max_clip_s: Seconds = 60.0  # longer videos are not clips (where the source tells the length)
    max_untrimmed_s: Seconds = 1800.0  # longer videos are left out (where the source tells the length)
    quota_bytes: Bytes | None = None  # disk that collected media may take
    min_free_bytes: Bytes = 1024 * MIB  # disk that must stay free
    shrink: Annotated[int, Field(ge=64, le=2160)] | None = None  # short side to make media small to on arrival

    keys: str | None = None  # YAML file of service keys, outside the recipe; else OMNISOURCE_<SERVICE>_KEY

    @model_validator(mode="after")
    def _templates_take_names(self) -> "Collect":
        for template in self.templates:
            if (
                "{name}" not in template
                or "{" in template.replace("{name}", "")
                or "}" in template.replace("{name}", "")
            ):
                raise ValueError(f"template '{template}' must hold {{name}} and no other braces")
        return self

    def max_bytes(self, format: str) -> int:
        """The size limit of one file of a format."""
        return {"image": self.max_image_bytes, "clip": self.max_clip_bytes}.get(format, self.max_untrimmed_bytes)
