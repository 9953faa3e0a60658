"""Lists of URLs and folders of files: sources that list instead of searching."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omnisource.collect.candidate import Candidate
from omnisource.collect.licences import normalise
from omnisource.collect.queries import Query, Window
from omnisource.errors import UserError
from omnisource.media import MediaError, sniff
from omnisource.progress import say
from omnisource.recipe.collect import CollectSource, Format
from omnisource.tables import read_batches, read_schema

# Column names that img2dataset's and video2dataset's users have for the same thing.
_COLUMNS = {
    "url": ("url", "image_url", "video_url", "link", "videoLoc"),
    "label": ("label", "class", "query_label", "category"),
    "query": ("query", "caption", "text", "keyword"),
    "page_url": ("page_url", "page", "source_url"),
    "title": ("title",),
    "author": ("author", "creator", "owner"),
    "licence": ("licence", "license"),
    "format": ("format",),
}
_MAX_LINE = 2**16  # characters: more than any URL that is asked


class UrlList:
    """A text file with a URL a line, or a CSV or Parquet file with a column of URLs and, if there are, of labels."""

    page_size = 1000
    cap = 10**9
    windowed = False
    requests_per_result = 0

    def __init__(self, settings: CollectSource, path: Path) -> None:
        self._name, self._path = settings.label, path
        self._format: Format = settings.format or "image"
        if not path.is_file():
            raise UserError(f"{path}: no such list of URLs (collect source {settings.label})")

    def search(self, query: Query | None, window: Window | None, limit: int) -> Iterator[Candidate]:
        for row in self._rows():
            said = {name: _first(row, columns) for name, columns in _COLUMNS.items()}
            if said["url"]:
                yield Candidate(
                    url=said["url"],
                    source=self._name,
                    format=_format(said["format"]) or self._format,
                    label=said["label"],
                    query=said["query"],
                    page_url=said["page_url"],
                    title=said["title"],
                    author=said["author"],
                    licence=normalise(said["licence"]),
                )

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            if self._path.suffix == ".parquet":
                self._check(read_schema(self._path).names)
                for batch in read_batches(self._path):
                    yield from batch.to_pylist()
            elif self._path.suffix in (".csv", ".tsv"):
                with self._path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                    reader = csv.DictReader(file, delimiter="\t" if self._path.suffix == ".tsv" else ",")
                    self._check(reader.fieldnames or ())
                    yield from reader
            else:
                # Of millions of URLs and captions one or the other has bytes that are no UTF-8: the rest goes on.
                with self._path.open(encoding="utf-8-sig", errors="replace") as file:
                    while line := file.readline(_MAX_LINE):
                        if "\0" in line:
                            raise ValueError("it is not UTF-8 text")
                        if line.strip() and not line.startswith("#"):
                            yield {"url": line.strip()}
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{self._path}: cannot be read as a list of URLs ({error})") from None

    def _check(self, names: Sequence[str]) -> None:
        if not set(names) & set(_COLUMNS["url"]):
            raise UserError(f"{self._path}: no column 'url'; it has: {', '.join(names)}")


class Folder:
    """A folder of <class>/<file>, or of plain files; they are copied into the store, the originals stay."""

    page_size = 1000
    cap = 10**9
    windowed = False
    requests_per_result = 0

    def __init__(self, settings: CollectSource, path: Path) -> None:
        self._name, self._path, self._format = settings.label, path, settings.format
        if not path.is_dir():
            raise UserError(f"{path}: no such folder (collect source {settings.label})")

    def search(self, query: Query | None, window: Window | None, limit: int) -> Iterator[Candidate]:
        for path in sorted(self._path.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(self._path).parts)
            if hidden or path.is_symlink() or not path.is_file():
                continue
            if str(path) != str(path).encode(errors="replace").decode():
                say(f"{path}: left out, as its name is not UTF-8; rename it")
                continue
            try:
                family = sniff(path).family
            except MediaError as error:
                say(f"left out: {error.message}")
                continue
            if family not in ("image", "video"):
                continue
            label = path.relative_to(self._path).parts[0] if path.parent != self._path else None
            video: Format = self._format if self._format in ("clip", "untrimmed") else "clip"
            yield Candidate(
                url=str(path.resolve()),
                source=self._name,
                format="image" if family == "image" else video,
                label=label,
                fetcher="file",
            )


def _first(row: dict[str, Any], columns: tuple[str, ...]) -> str | None:
    return next((str(row[column]) for column in columns if row.get(column) not in (None, "")), None)


def _format(stated: str | None) -> Format | None:
    return stated if stated in ("image", "clip", "untrimmed") else None  # type: ignore[return-value]
