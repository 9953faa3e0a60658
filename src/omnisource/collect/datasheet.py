"""A dataset card for what was collected: what it is, where it comes from, under which licences, and what is missing.

The headings follow Gebru et al., Datasheets for Datasets (2021); only what the tables know is filled in, the questions
that need a person are left open by name.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

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
    rows = read_table(path).to_pylist()
    state = open_state(workspace)
    try:
        reasons, by_class = state.reasons(), state.by_source(classes=True)
    finally:
        state.close()
    times = [row["retrieved_at"] for row in rows if row["retrieved_at"]]
    period = f"{min(times):%Y-%m-%d} to {max(times):%Y-%m-%d}" if times else "unknown"
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
            f"{len(rows)} files, {sum(row['bytes'] or 0 for row in rows) / 2**20:.1f} MiB. Every file is filed under "
            "the class whose query found it: a guess, not a label.",
            "",
            *_table(("format", "files"), Counter(row["format"] for row in rows).most_common()),
            *_table(("class", "files"), sorted(Counter(row["query_label"] or "(none)" for row in rows).items())),
            "## Licences and authors",
            "",
            "As the services state them; nothing was verified.",
            "",
            *_table(("licence", "files"), Counter(row["licence"] or "unknown" for row in rows).most_common()),
            f"{len({row['author'] for row in rows if row['author']})} named authors; "
            f"{sum(row['author'] is None for row in rows)} files without one.",
            "",
            "## Collection",
            "",
            f"Retrieved {period}. robots.txt {'obeyed' if settings.get('robots', True) else 'not obeyed'}; "
            f"licence filter: {', '.join(settings.get('licence') or []) or 'none'}.",
            "",
            *_table(("source", "class", "found", "finished", "failed"), by_class),
            *_table(("host", "files"), _hosts(rows)),
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


def _hosts(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    counted = Counter(urlsplit(row["url"]).netloc for row in rows if row["url"])
    return counted.most_common(_MOST_HOSTS)
