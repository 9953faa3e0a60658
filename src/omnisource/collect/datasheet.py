"""A dataset card for what was collected: what it is, where it comes from, under which licences, and what is missing.

The headings follow Gebru et al., Datasheets for Datasets (2021); only what the tables know is filled in, the questions
that need a person are left open by name.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from omnisource.collect.stage import open_state
from omnisource.errors import UserError
from omnisource.tables import read_table
from omnisource.workspace import Workspace

_MOST_HOSTS = 20


def datasheet(workspace: Workspace, name: str) -> str:
    """The card as Markdown. Raises `UserError` if nothing was collected here."""
    path = workspace.table("collected")
    if not path.exists():
        raise UserError(f"{workspace.root}: nothing was collected here; run `omnisource collect`")
    rows = read_table(path, ["format", "query_label", "bytes", "url", "author", "licence", "retrieved_at"])
    with open_state(workspace) as state:
        reasons, by_class = state.reasons(), state.by_source(classes=True)
    times = pc.min_max(rows["retrieved_at"]).as_py()
    period = f"{times['min']:%Y-%m-%d} to {times['max']:%Y-%m-%d}" if times["min"] else "unknown"
    record = workspace.record("collect")
    settings = record.settings if record else {}
    return "\n".join(
        [
            f"# {name}: web media collected with OmniSource",
            "",
            f"Written {datetime.now(UTC):%Y-%m-%d} from the tables of the workspace.",
            "",
            "## Composition",
            "",
            f"{rows.num_rows} files, {(pc.sum(rows['bytes']).as_py() or 0) / 2**20:.1f} MiB. Every file is filed under "
            "the class whose query found it: a guess, not a label.",
            "",
            *_table(("format", "files"), _most_common(rows["format"])),
            *_table(("class", "files"), sorted(_most_common(rows["query_label"], "(none)"))),
            "## Licences and authors",
            "",
            "As the services state them; nothing was verified.",
            "",
            *_table(("licence", "files"), _most_common(rows["licence"], "unknown")),
            f"{pc.count_distinct(rows['author'])} named authors; {rows['author'].null_count} files without one.",
            "",
            "## Collection",
            "",
            f"Retrieved {period}. robots.txt {'obeyed' if settings.get('robots', True) else 'not obeyed'}; "
            f"licence filter: {', '.join(settings.get('licence') or []) or 'none'}.",
            "",
            *_table(("source", "class", "found", "finished", "failed"), by_class),
            *_table(("host", "files"), _hosts(rows["url"])),
            "URLs that failed, by reason:",
            "",
            *_table(("reason", "URLs"), reasons.items()),
            "## To be answered by a person",
            "",
            "- For what purpose was the dataset made, and by whom?",
            "- Does it show people who can be recognised, and did they consent?",
            "- May it be passed on, under which terms, and who answers requests for removal?",
            "  (`omnisource forget --url|--author|--host|--sha256` takes media out.)",
            "",
        ]
    )


def _table(head: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> list[str]:
    lines = [" | ".join(_cell(cell) for cell in row) for row in rows]
    ruler = "|".join("---" for _ in head)
    return [f"| {' | '.join(head)} |", f"|{ruler}|", *(f"| {line} |" for line in lines), ""]


def _cell(value: Any) -> str:
    # Text from the network must not become markup of the card.
    text = " ".join(str("(none)" if value is None else value).split())
    return "".join(f"\\{character}" if character in "|<>[]`*_\\" else character for character in text)


def _most_common(column: pa.ChunkedArray, absent: str = "") -> list[tuple[str, int]]:
    """The values of a column and how many rows have each, those of most rows first."""
    counted = Counter[str]()
    for entry in pc.value_counts(column).to_pylist():
        counted[entry["values"] or absent] += entry["counts"]
    return counted.most_common()


def _hosts(urls: pa.ChunkedArray) -> list[tuple[str, int]]:
    counted = Counter(urlsplit(url).netloc for chunk in urls.drop_null().chunks for url in map(str, chunk) if url)
    return counted.most_common(_MOST_HOSTS)
