"""The listed rows of all sources, on disk from the first to the last: what needs a look at all of them is a query."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from omnisource.errors import UserError
from omnisource.ingest.facts import BAD_ROW, batched
from omnisource.ingest.values import by_plain_name, plain_name
from omnisource.progress import say
from omnisource.recipe import Source
from omnisource.scratch import scratch
from omnisource.tables import SAMPLES, database, table_from_rows, write_batches

_MEMORY = 400_000_000  # bytes of the queries; they spill to disk beyond it
_ROWS = 16_384  # in one piece
_PLACED = SAMPLES.append(pa.field("place", pa.int64(), nullable=False))  # in the order of listing


class Group(NamedTuple):
    """Rows that are alike."""

    source: str
    role: str
    split: str | None
    status: str
    reason: str | None
    label: str | None
    rows: int


class Listed:
    """Rows of SAMPLES as they were listed, until `write` makes a table of them. Use `listing`.

    Attributes:
        folder: a place for the table until it is wanted; gone when `listing` ends.
    """

    def __init__(self, db: duckdb.DuckDBPyConnection, folder: Path, sources: Mapping[str, Source]) -> None:
        self._db, self.folder, self._sources, self._count = db, folder, sources, 0
        db.execute("SET threads=1")  # looking at the files takes the time, and this less memory
        db.register("nothing", _PLACED.empty_table())
        db.execute("CREATE TABLE listed AS FROM nothing")
        db.execute("CREATE TABLE drawn (place BIGINT)")  # for the test split
        db.execute("CREATE TABLE surplus (place BIGINT)")  # more than the source's limit
        db.execute(f"CREATE VIEW kept AS {_KEPT}")

    def add(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Takes all rows of the source `name` once, draws its test clips and finds what is more than its limit.

        Raises:
            UserError: a value in them that no table can hold.
        """
        first = self._count
        for some in batched(rows, _ROWS):
            self._db.register("more", _table(name, some, self._count))
            self._db.execute("INSERT INTO listed FROM more")
            self._count += len(some)
        self._leave_out_repeated(name, first)
        source = self._sources[name]
        share = 0.0 if source.layout == "collected" else source.test_share  # what was collected is web data
        if share and not self._any("split = 'test'", first):
            self._draw(share, source.test_part, first)
        if source.max_per_class is not None:
            self._db.execute(
                f"""INSERT INTO surplus SELECT place FROM kept WHERE place >= ? AND {_KNOWN}
                QUALIFY row_number() OVER (PARTITION BY label, query_label, split ORDER BY sample_id, place) > ?""",
                [first, source.max_per_class],
            )

    def _leave_out_repeated(self, name: str, first: int) -> None:
        """Rows from the place `first` on that say of a file, however it is spelt, again what one before them says.

        `write` refuses others.
        """
        repeated = self._db.execute(
            """INSERT INTO surplus SELECT place FROM listed WHERE place >= ? AND uri IN
                (SELECT uri FROM listed WHERE place >= ? GROUP BY uri HAVING count(*) > 1)
            QUALIFY row_number() OVER (
                PARTITION BY uri, start_s, end_s, label, query_label, split, fold, "group" ORDER BY place) > 1
            RETURNING place""",
            [first, first],
        ).fetchall()
        if repeated:
            ((uri,),) = self._db.execute("SELECT uri FROM listed WHERE place = ?", min(repeated)).fetchall()
            say(f"left out (listed before): {len(repeated)} rows of sources.{name}, first {uri}")

    def _any(self, condition: str, first: int) -> bool:
        """Whether a row satisfies the condition, from the place `first` on."""
        return bool(
            self._db.execute(f"SELECT 1 FROM listed WHERE place >= ? AND {condition} LIMIT 1", [first]).fetchall()
        )

    def _draw(self, share: float, part: int, first: int) -> None:
        """Moves a share of each class to the test split, by a hash that no other row influences; whole groups together.

        Only rows from the place `first` on. A group may span classes, so it must fall by its hash alone; single clips
        can be shared out evenly. No two parts have a clip in common.
        """
        unit = f"""SELECT place, coalesce(label, '') AS label, sha256(coalesce(nullif("group", ''), sample_id)) AS hash
            FROM listed WHERE place >= {first} AND {_KNOWN}"""
        if self._any("\"group\" <> ''", first):
            number = "('0x' || substr(hash, 1, 8))::UBIGINT::DOUBLE / 4294967296::DOUBLE"
            self._db.execute(
                f"INSERT INTO drawn SELECT place FROM ({unit}) WHERE {number} >= ?::DOUBLE AND {number} < ?::DOUBLE",
                [part * share, (part + 1) * share],
            )
            return
        sizes = self._db.execute(f"SELECT label, count(DISTINCT hash) FROM ({unit}) GROUP BY label").fetchall()
        wanted = [(label, _end(part, share, size), _end(part + 1, share, size)) for label, size in sizes if size > 1]
        self._db.register(
            "wanted", pa.Table.from_pylist([dict(zip(_WANTED.names, row, strict=True)) for row in wanted], _WANTED)
        )
        self._db.execute(
            f"""INSERT INTO drawn SELECT place FROM ({unit}) JOIN wanted USING (label)
            QUALIFY dense_rank() OVER (PARTITION BY label ORDER BY hash) BETWEEN above + 1 AND upto"""
        )

    def labels(self) -> list[str]:
        """The labels of all target rows, sorted."""
        rows = self._db.execute("SELECT DISTINCT label FROM kept WHERE role = 'target' AND label <> ''").fetchall()
        return sorted(label for (label,) in rows)

    def settle(self, classes: Sequence[str]) -> None:
        """Maps every label to a class name; spelling by case, underscores and dashes is forgiven, anything else is not.

        Nor is it where classes differ in nothing else.

        Raises:
            UserError: a label that is no class, a target row without one.
        """
        plain = by_plain_name(classes)
        meant, unknown, listed = dict[str, str](), list[tuple[bool, str | None]](), set(classes)
        found = self._db.execute(f"SELECT DISTINCT role = 'target', {_LABEL} FROM kept WHERE {_KNOWN}").fetchall()
        for target, label in found:
            if (label is None and not target) or label in listed:
                continue
            if label is not None and len(plain.get(plain_name(label), ())) == 1:
                (meant[label],) = plain[plain_name(label)]
            else:
                unknown.append((target, label))
        if unknown:
            raise self._unknown(unknown, classes)
        self._db.register("meant", _pairs(meant, ("written", "name"), pa.string()))

    def _unknown(self, labels: Sequence[tuple[bool, str | None]], classes: Sequence[str]) -> UserError:
        """What is wrong with the first row that has one of these labels."""
        columns = [pa.array(column, kind) for column, kind in zip(zip(*labels, strict=True), _ROLE_LABEL, strict=True)]
        self._db.register("unknown", pa.table(columns, ["target", "written"]))
        names, limited = list(self._sources), [name for name, of in self._sources.items() if of.max_per_class]
        uri, source, label = self._db.execute(
            f"""SELECT uri, source, written FROM kept
            JOIN unknown ON target = (role = 'target') AND written IS NOT DISTINCT FROM {_LABEL} AND {_KNOWN}
            ORDER BY list_position(?::VARCHAR[], source),
                CASE WHEN list_contains(?::VARCHAR[], source) THEN sample_id END, place LIMIT 1""",
            [names, limited],
        ).fetchall()[0]
        if label is None:
            return UserError(
                f"{uri}: no label (sources.{source}); give it one, leave such rows out with `exclude`, or say which "
                "column has the labels with columns: {label: NAME}"
            )
        close = difflib.get_close_matches(label, classes, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"classes are: {', '.join(classes[:12])}"
        return UserError(
            f"{uri}: label '{label}' (sources.{source}) is not in the class list; {hint}; "
            f"say what it means with `labels: {{{label}: CLASS}}`, or leave such rows out with `where` or `exclude`"
        )

    def write(self, path: Path) -> None:
        """Writes the table of all rows, by source and id, with the labels that `settle` found.

        Raises:
            UserError: a row that is listed twice.
        """
        rows = self._db.sql(_SETTLED).to_arrow_reader(_ROWS)
        write_batches(path, SAMPLES, rows)
        self._db.read_parquet(str(path), file_row_number=True).create_view("samples")
        repeated = self._db.execute(
            """SELECT min(uri), count(*), list_sort(list_distinct(list(coalesce(label, query_label)))) FROM samples
            GROUP BY sample_id HAVING count(*) > 1 ORDER BY min(source), sample_id LIMIT 1"""
        ).fetchall()
        for uri, times, labels in repeated:
            raise UserError(
                f"{uri}: listed {times} times in one source, "
                + (
                    f"as {' and as '.join(labels)}; mend the list"
                    if len(labels) > 1
                    else "with other splits, folds or groups; choose one split of the list with `where: {fold: 1}`"
                )
            )

    def groups(self) -> list[Group]:
        """How many rows of each kind there are in the written table, in the order in which they come first."""
        rows = self._db.execute(
            """SELECT source, role, split, status, reason, label, count(*) FROM samples
            GROUP BY ALL ORDER BY min(file_row_number)"""
        ).fetchall()
        return [Group(*row) for row in rows]


@contextmanager
def listing(place: Path, sources: Mapping[str, Source]) -> Iterator[Listed]:
    """An empty list, which lies in a folder of its own inside `place` until the block ends.

    Raises:
        UserError: the disk is full.
    """
    with database(place, _MEMORY) as db, scratch(place) as folder:
        yield Listed(db, folder, sources)


def _table(name: str, rows: Sequence[dict[str, Any]], first: int) -> pa.Table:
    try:
        return table_from_rows((row | {"place": place} for place, row in enumerate(rows, first)), _PLACED)
    except (UnicodeError, OverflowError, pa.ArrowInvalid) as error:
        if len(rows) > 1:
            for row in rows:  # one of them is the one
                _table(name, [row], first)
        raise UserError(
            f"{rows[0]['uri']}: its row (sources.{name}) holds what a table can't ({error}); mend the list, or rename "
            "the folder"
        ) from error


_WANTED = pa.schema([("label", pa.string()), ("above", pa.int64()), ("upto", pa.int64())])


def _end(parts: int, share: float, size: int) -> int:
    """How many of `size` clips the first so many parts hold together; the first part has one at least."""
    return max(min(parts, 1), round(parts * share * size))


def _pairs(values: Mapping[str, Any], names: tuple[str, str], kind: pa.DataType) -> pa.Table:
    return pa.table([pa.array(list(values), pa.string()), pa.array(list(values.values()), kind)], list(names))


_ROLE_LABEL = (pa.bool_(), pa.string())
_KNOWN = f"reason IS DISTINCT FROM '{BAD_ROW}'"  # of a bad row nothing is
_LABEL = "CASE role WHEN 'target' THEN label ELSE query_label END"

_KEPT = """
    SELECT * REPLACE (CASE WHEN place IN (FROM drawn) THEN 'test' ELSE split END AS split)
    FROM listed WHERE place NOT IN (FROM surplus)"""

_SETTLED = f"""
    SELECT kept.* EXCLUDE (place) REPLACE (
        CASE WHEN role = 'target' THEN coalesce(name, label) ELSE label END AS label,
        CASE WHEN role = 'target' THEN query_label ELSE coalesce(name, query_label) END AS query_label
    ) FROM kept LEFT JOIN meant ON written = {_LABEL} ORDER BY source, sample_id"""
