"""`collect:` what is asked for on the web, whom, how politely, and what is kept of it (paper, section 3.1)."""

from datetime import date
from typing import Any, Literal

from pydantic import Field, model_validator

from omnisource.recipe.base import Section

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

    name: SourceName
    argument: str = Field("", description="what the source needs to know: a file, a folder, a page address with {query}")
    format: Format | None = Field(None, description="take only this format; urls and folder file theirs under it")
    limit: int = Field(500, ge=1, description="most results of one query (and time period)")
    tags: bool = Field(False, description="ask by tags made from the class name instead of the name")
    robots: bool | None = Field(None, description="overrules collect.robots for the search requests of this source")
    endpoint: str | None = Field(None, description="another address of the same service, such as a mirror of one's own")

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
        return f"{self.name}:{self.argument}" if self.argument else self.name


class Collect(Section):
    """What to ask for, whom, how politely, and what to keep of it."""

    sources: list[CollectSource] = Field(default_factory=list)
    templates: list[str] = Field(["{name}"], min_length=1, description="queries of a class; {name} is its name")
    variants: dict[str, list[str]] = Field({}, description="other names of a class, such as translations")
    since: date = date(2010, 1, 1)
    until: date | None = Field(None, description="last day asked for; none: today")
    slice: Literal["none", "year", "month", "week"] = Field(
        "none", description="ask sources that know time periods once for each of them, which beats their result caps"
    )
    licence: list[str] = Field([], description="keep only these licences (cc0, cc-by, ...); empty: all, unknown included")

    user_agent: str = Field(
        "omnisource (research crawler; set collect.user_agent to name yourself)", min_length=3, max_length=200
    )
    robots: bool = Field(True, description="obey robots.txt")
    allow_private: bool = Field(False, description="ask private, loopback and link-local addresses too")
    hosts: int = Field(64, ge=1, le=1000, description="hosts worked at the same time")
    per_host: int = Field(4, ge=1, le=64, description="requests to one host at the same time")
    rate_per_host: float = Field(5.0, ge=0, description="most requests a second to one host; 0: no limit")
    attempts: int = Field(4, ge=1, le=20, description="tries of one URL before it counts as failed")
    backoff_s: float = Field(2.0, ge=0, description="wait before the second try; doubles with each")
    max_wait_s: float = Field(600.0, ge=0, description="longest wait that a server may ask for; beyond it the URL fails")
    timeout_s: float = Field(20.0, gt=0, description="longest silence of a server")
    slowest_bytes_per_s: int = Field(4096, ge=0, description="slower answers are given up after timeout_s")

    max_image_bytes: int = Field(32 * MIB, ge=1)
    max_clip_bytes: int = Field(128 * MIB, ge=1)
    max_untrimmed_bytes: int = Field(2048 * MIB, ge=1)
    max_clip_s: float = Field(60.0, gt=0, description="a clip is at most this long, where the source tells")
    max_untrimmed_s: float = Field(1800.0, gt=0, description="an untrimmed video is at most this long")
    quota_bytes: int | None = Field(None, ge=0, description="disk that collected media may take")
    min_free_bytes: int = Field(1024 * MIB, ge=0, description="disk that must stay free")
    shrink: int | None = Field(None, ge=64, le=2160, description="short side to shrink media to on arrival")

    keys: str | None = Field(
        None, description="YAML file of service keys (name: key), outside the recipe; else OMNISOURCE_<SERVICE>_KEY"
    )

    def max_bytes(self, format: Format) -> int:
        """The size limit of one file of a format."""
        return {
            "image": self.max_image_bytes,
            "clip": self.max_clip_bytes,
            "untrimmed": self.max_untrimmed_bytes,
        }[format]
