"""Selection: every rule, override and cap against a plain re-statement of it in Python."""

import resource
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.curate.decide import decide
from omnisource.curate.overrides import read_overrides
from omnisource.curate.units import units
from omnisource.errors import UserError
from omnisource.recipe import Select
from omnisource.tables import SAMPLES, SCORES, database, table_from_rows, write_table

CLASSES = ["jump", "wave", "it's; DROP"]


def sample(sample_id: str, query: str | None, format_: str = "image", source: str = "web") -> dict[str, Any]:
    return {
        "sample_id": sample_id,
        "source": source,
        "role": "web",
        "format": format_,
        "uri": f"/{sample_id}",
        "query_label": query,
        "status": "ok",
    }


def score(
    sample_id: str,
    probs: list[float] | None,
    query: str | None,
    unit: str = "image",
    start_s: float | None = None,
    teacher: str = "t",
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "sample_id": sample_id,
        "teacher": teacher,
        "unit": unit,
        "start_s": start_s,
        "end_s": None if start_s is None else start_s + 10,
        "status": "ok",
    }
    if probs is None:
        return row | {"status": "dropped", "reason": "corrupt"}
    order = np.argsort(probs)[::-1]
    return row | {
        "top_classes": order.tolist(),
        "top_probs": [probs[i] for i in order],
        "probs": probs,
        "query_prob": None if query is None else probs[CLASSES.index(query)],
    }


def run(
    folder: Path,
    samples: list[dict[str, Any]],
    scores: list[dict[str, Any]],
    select: Select,
    overrides: pa.Table | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    write_table(folder / "samples.parquet", table_from_rows(samples, SAMPLES))
    write_table(folder / "scores.parquet", table_from_rows(scores, SCORES))
    with units(folder / "scores.parquet", folder / "samples.parquet", CLASSES, select.label == "soft") as db:
        tables = list(decide(db, select, overrides, **options))
    return [row for table in tables for row in table.to_pylist()]


def test_agree_keeps_what_teacher_and_query_both_say(tmp_path: Path) -> None:
    samples = [sample("a", "jump"), sample("b", "wave"), sample("c", "jump"), sample("d", None), sample("e", "jump")]
    scores = [
        score("a", [0.8, 0.1, 0.1], "jump"),
        score("b", [0.8, 0.1, 0.1], "wave"),
        score("c", [0.36, 0.34, 0.3], "jump"),
        score("d", [0.8, 0.1, 0.1], None),
        score("e", None, "jump"),
    ]
    rows = run(tmp_path, samples, scores, Select(threshold=0.5))
    assert [(row["sample_id"], row["keep"], row["reason"]) for row in rows] == [
        ("a", True, None),
        ("b", False, "teacher_disagrees"),
        ("c", False, "below_threshold"),
        ("d", False, "no_query"),
        ("e", False, "corrupt"),
    ]
    assert rows[0]["label"] == "jump" and rows[0]["decided_by"] == "rule"


def test_the_other_rules_and_labels(tmp_path: Path) -> None:
    samples = [sample("a", "wave"), sample("nothing asked", None)]
    scores = [score("a", [0.5, 0.2, 0.3], "wave"), score("nothing asked", [0.5, 0.2, 0.3], None)]
    kept = {}
    for rule in ("agree", "query", "teacher", "all"):
        for label in ("query", "teacher"):
            select = Select(rule=rule, label=label, threshold=0.4)  # type: ignore[arg-type]
            asked, not_asked = run(tmp_path, samples, scores, select)
            kept[(rule, label)] = (asked["keep"], asked["label"])
            by_teacher = rule in ("teacher", "all") and label == "teacher"
            assert (not_asked["keep"], not_asked["reason"]) == (by_teacher, None if by_teacher else "no_query")
    assert kept[("agree", "query")] == (False, "wave")
    assert kept[("query", "query")] == (False, "wave")
    assert kept[("teacher", "query")] == (True, "wave")
    assert kept[("teacher", "teacher")] == (True, "jump")
    assert kept[("all", "query")] == (True, "wave")
    assert kept[("all", "teacher")] == (True, "jump")
    soft = run(tmp_path, samples, scores, Select(rule="all", label="soft"))[0]
    assert soft["label"] == "jump" and soft["probs"] == pytest.approx([0.5, 0.2, 0.3])


def test_thresholds_per_class_win_over_those_per_source(tmp_path: Path) -> None:
    samples = [
        sample(name, query, source=source)
        for name, query, source in [
            ("a", "jump", "web"),
            ("b", "jump", "tube"),
            ("c", "wave", "tube"),
            ("d", "it's; DROP", "web"),
        ]
    ]
    scores = [
        score(s["sample_id"], [0.6 if c == s["query_label"] else 0.2 for c in CLASSES], s["query_label"])
        for s in samples
    ]
    select = Select(threshold=0.7, per_source={"tube": 0.5}, per_class={"wave": 0.9, "it's; DROP": 0.1})
    assert [row["keep"] for row in run(tmp_path, samples, scores, select)] == [False, True, False, True]


def test_frames_split_into_positive_negative_and_neither(tmp_path: Path) -> None:
    samples = [sample("v", "jump", "untrimmed")]
    drawn = [[0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [0.4, 0.3, 0.3], [0.05, 0.95, 0.0]]
    scores = [score("v", probs, "jump", "frame", at) for at, probs in enumerate(drawn)]
    rows = run(tmp_path, samples, scores, Select(threshold=0.5, negative_below=0.1))
    assert [row["reason"] for row in rows] == [None, "teacher_disagrees", "below_threshold", "teacher_disagrees"]
    assert [(row["keep"], row["negative"]) for row in rows] == [(True, False), *[(False, False)] * 2, (False, True)]


def test_touching_windows_of_one_label_merge(tmp_path: Path) -> None:
    samples = [sample("v", "jump", "untrimmed"), sample("w", "jump", "untrimmed")]
    chances = [0.9, 0.8, 0.1, 0.9, 0.9, 0.9]
    scores = [score(v, [p, 1 - p, 0.0], "jump", "window", 10.0 * at) for v in "vw" for at, p in enumerate(chances)]
    rows = run(tmp_path, samples, scores, Select(threshold=0.5, merge_windows=True))
    for video in "vw":
        mine = [row for row in rows if row["sample_id"] == video]
        assert [(row["start_s"], row["end_s"]) for row in mine if row["keep"]] == [(0.0, 20.0), (30.0, 60.0)]
        assert [row["reason"] for row in mine] == [None, "merged", "teacher_disagrees", None, "merged", "merged"]
    plain = run(tmp_path, samples, scores, Select(threshold=0.5))
    assert sum(row["keep"] for row in plain) == 10


def test_a_cap_keeps_the_surest_of_each_source_unit_and_label_and_the_first_of_equals(tmp_path: Path) -> None:
    samples = [
        sample(name, "jump", "untrimmed", source) for name, source in zip("vwx", ("web", "web", "tube"), strict=True)
    ]
    windows = [("v", 0, 0.8), ("v", 10, 0.6), ("v", 20, 0.6), ("w", 0, 0.6), ("w", 10, 0.9), ("x", 0, 0.55)]
    scores = [score(name, [p, 1 - p, 0.0], "jump", "window", float(at)) for name, at, p in windows]
    scores.append(score("v", [0.55, 0.45, 0.0], "jump", "frame", 0.0))
    for cap, last_kept in ((3, 10.0), (4, 20.0)):
        rows = run(tmp_path, samples, scores, Select(cap_per_class=cap, threshold=0.5))
        over = {(row["sample_id"], row["start_s"]) for row in rows if row["reason"] == "over_cap"}
        assert over == {("w", 0.0)} | {("v", at) for at in (10.0, 20.0) if at > last_kept}
        assert sum(row["keep"] for row in rows) == cap + 2


def test_several_teachers_are_averaged_and_one_failure_drops_the_unit(tmp_path: Path) -> None:
    samples = [sample("a", "jump"), sample("b", "jump"), sample("c", "jump", "clip")]
    scores = [
        score("a", [0.9, 0.1, 0.0], "jump", teacher="s"),
        score("a", [0.2, 0.8, 0.0], "jump", teacher="t"),
        score("b", [0.9, 0.1, 0.0], "jump", teacher="s"),
        score("b", None, "jump", teacher="t"),
        score("c", [0.7, 0.3, 0.0], "jump", "clip", teacher="t"),  # a kind that one teacher scores
    ]
    a, b, c = run(tmp_path, samples, scores, Select(threshold=0.5))
    assert a["keep"] and a["confidence"] == pytest.approx(0.55) and a["probs"] is None, "its label is the query's"
    assert (b["keep"], b["reason"]) == (False, "corrupt")
    assert c["keep"] and c["confidence"] == pytest.approx(0.7)
    for row in scores:
        row.pop("probs", None)
    with pytest.raises(UserError, match=r"score\.probs=true"):
        run(tmp_path, samples, scores, Select())
    assert run(tmp_path, samples, scores[-1:], Select(threshold=0.5))[0]["keep"]
    with pytest.raises(UserError, match=r"soft labels.*score\.probs=true"):
        run(tmp_path, samples, scores[-1:], Select(label="soft"))


@pytest.mark.parametrize("rule", ["agree", "query", "teacher", "all"])
def test_unanimous_teachers_have_the_same_best_class(tmp_path: Path, rule: Any) -> None:
    samples = [sample(name, "jump") for name in "abc"]
    scores = [
        score("a", [0.9, 0.1, 0.0], "jump", teacher="s"),
        score("a", [0.6, 0.4, 0.0], "jump", teacher="t"),
        score("b", [0.9, 0.1, 0.0], "jump", teacher="s"),
        score("b", [0.4, 0.6, 0.0], "jump", teacher="t"),
        score("c", [0.9, 0.1, 0.0], "jump", teacher="s"),
    ]
    open_, strict = (Select(rule=rule, threshold=0.5, unanimous=unanimous) for unanimous in (False, True))
    assert [row["keep"] for row in run(tmp_path, samples, scores, open_)] == [True, True, True]
    file = tmp_path / "human.csv"
    file.write_text("sample_id,start_s,keep,label\nb,,yes,wave\n")
    for label in ("query", "soft"):
        given = strict.model_copy(update={"label": label})
        a, b, c = run(tmp_path, samples, scores, given)
        assert a["keep"] and a["confidence"] == pytest.approx(0.75)
        assert (b["keep"], b["reason"]) == (False, "teachers_divided")
        assert c["keep"], "one teacher alone agrees with itself"
        assert run(tmp_path, samples, scores, given, read_overrides(file, CLASSES))[1]["keep"], "humans win"


def test_what_unsure_teachers_see_differently_is_unsure(tmp_path: Path) -> None:
    """The reason says what the option alone costs; a frame of which the average is unsure stays a negative."""
    samples = [sample("queried", "jump"), sample("v", None, "untrimmed")]
    scores = [score("queried", p, "jump", teacher=t) for t, p in (("s", [0.2, 0.5, 0.3]), ("t", [0.3, 0.2, 0.5]))]
    scores += [score("v", p, None, "frame", 0.0, t) for t, p in (("s", [0.2, 0.5, 0.3]), ("t", [0.3, 0.2, 0.5]))]
    for unanimous in (False, True):
        select = Select(rule="query", label="teacher", threshold=0.5, unanimous=unanimous)
        assert run(tmp_path, samples, scores, select)[0]["reason"] == "below_threshold"
        teacher = select.model_copy(update={"rule": "teacher"})
        (frame,) = [row for row in run(tmp_path, samples, scores, teacher) if row["unit"] == "frame"]
        assert (frame["reason"], frame["negative"]) == ("below_threshold", True)


def test_humans_win_and_the_most_specific_of_them(tmp_path: Path) -> None:
    samples = [sample("a", "jump"), sample("b", "jump"), sample("v", "jump", "untrimmed")]
    scores = [score("a", [0.1, 0.8, 0.1], "jump"), score("b", [0.8, 0.1, 0.1], "jump")]
    scores += [score("v", [0.05, 0.9, 0.05], "jump", "frame", float(at)) for at in range(3)]
    file = tmp_path / "human.csv"
    file.write_text("sample_id,start_s,keep,label\na,,yes,wave\nb,,no,\nv,,no,wave\nv,1,yes,\ngone,,yes,\n")
    rows = run(tmp_path, samples, scores, Select(), read_overrides(file, CLASSES))
    assert [(row["keep"], row["label"], row["reason"], row["negative"]) for row in rows] == [
        (True, "wave", None, False),
        (False, "jump", "human", False),
        (False, "wave", "human", False),
        (True, "jump", None, False),  # all of the row about this frame, which leaves the label to the rule
        (False, "wave", "human", False),
    ]
    assert {row["decided_by"] for row in rows} == {"human"}


def test_a_row_about_a_piece_stands_above_one_about_a_kind_and_the_later_above_the_earlier(tmp_path: Path) -> None:
    samples = [sample("v", "jump", "untrimmed")]
    scores = [score("v", [0.9, 0.1, 0.0], "jump", unit, at) for unit in ("frame", "window") for at in (0.0, 10.0)]
    rows = ["v,window,10.0004,yes", "v,frame,,no", "v,,10,no", "v,,,no", "v,frame,,yes"]
    file = tmp_path / "human.csv"
    file.write_text("\n".join(["sample_id,unit,start_s,keep", *rows]))
    decided = run(tmp_path, samples, scores, Select(), read_overrides(file, CLASSES))
    assert [(row["unit"], row["start_s"], row["keep"]) for row in decided] == [
        ("frame", 0.0, True),
        ("frame", 10.0, False),
        ("window", 0.0, False),
        ("window", 10.0, True),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,keep\n", "no column 'sample_id'"),
        ("sample_id,keep\na,perhaps\n", "2: keep is 'perhaps'"),
        ("sample_id,keep,label\na,yes,fly\n", "'fly' is not in the class list"),
        ("sample_id,keep,start_s\na,yes,nan\n", "start_s is 'nan'"),
        ("sample_id,keep,unit\na,yes,film\n", "unit is 'film'"),
        ("sample_id,keep\n,yes\n", "no sample_id"),
        ("sample_id,keep\na\n", "keep is ''"),
    ],
)
def test_wrong_overrides_name_the_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "human.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=says) as error:
        read_overrides(file, CLASSES)
    assert str(file) in str(error.value)


@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3).filter(any), min_size=1, max_size=3), max_size=20
    ),
    st.sampled_from(["agree", "query", "teacher", "all"]),
    st.sampled_from(["query", "soft"]),
    st.none() | st.integers(1, 3),
    st.sampled_from([4, 1000]),
)
def test_unanimous_is_one_more_condition_before_the_cap(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[list[list[int]]],
    rule: Any,
    label: Any,
    cap: int | None,
    at_once: int,
) -> None:
    samples = [sample(f"s{at:02d}", CLASSES[at % 3]) for at in range(len(drawn))]
    scores = [
        score(f"s{at:02d}", [w / sum(weights) for w in weights], CLASSES[at % 3], teacher=f"t{teacher}")
        for at, teachers in enumerate(drawn)
        for teacher, weights in enumerate(teachers)
    ]
    best: dict[str, set[int]] = {}
    for row in scores:
        best.setdefault(row["sample_id"], set()).add(row["top_classes"][0])
    select = Select(rule=rule, label=label, threshold=0.4)
    folder = tmp_path_factory.mktemp("unanimous")
    wanted = {
        row["sample_id"]: row if len(best[row["sample_id"]]) == 1 or not row["keep"] else None
        for row in run(folder, samples, scores, select)
    }
    if cap:
        for name in CLASSES:
            mine = [row for row in wanted.values() if row and row["keep"] and row["label"] == name]
            for row in sorted(mine, key=lambda row: (-row["confidence"], row["sample_id"]))[cap:]:
                wanted[row["sample_id"]] = row | {"keep": False, "probs": None, "reason": "over_cap"}
    asked = select.model_copy(update={"unanimous": True, "cap_per_class": cap})
    for row in run(folder, samples, scores, asked, rows=at_once):
        expected = wanted[row["sample_id"]]
        assert row == expected if expected else (row["keep"], row["reason"]) == (False, "teachers_divided")


@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(1, 100), min_size=3, max_size=3)), max_size=30),
    st.sampled_from(["agree", "query", "teacher", "all"]),
    st.sampled_from(["query", "teacher"]),
    st.floats(0, 1),
    st.none() | st.integers(1, 3),
    st.sampled_from([4, 1000]),
)
def test_the_sql_says_what_the_rules_say(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[int, list[int]]],
    rule: Any,
    label: Any,
    threshold: float,
    cap: int | None,
    at_once: int,
) -> None:
    samples, scores, wanted = [], [], {}
    for at, (query, weights) in enumerate(drawn):
        probs = [float(np.float32(w / sum(weights))) for w in weights]
        name, top = f"s{at:02d}", int(np.argsort(probs)[::-1][0])
        samples.append(sample(name, CLASSES[query]))
        scores.append(score(name, probs, CLASSES[query]))
        if rule == "agree":
            keep = top == query and probs[query] >= threshold
        elif rule == "query":
            keep = probs[query] >= threshold
        else:
            keep = rule == "all" or probs[top] >= threshold
        confident = probs[top] if rule == "teacher" or (rule == "all" and label == "teacher") else probs[query]
        if keep:
            wanted[name] = (CLASSES[query if label == "query" else top], confident)
    if cap:
        for given_label in CLASSES:
            ranked = sorted((-c, n) for n, (kept_label, c) in wanted.items() if kept_label == given_label)
            for _, name in ranked[cap:]:
                del wanted[name]
    select = Select(rule=rule, label=label, threshold=threshold, cap_per_class=cap)
    rows = run(tmp_path_factory.mktemp("select"), samples, scores, select, rows=at_once)
    assert {row["sample_id"]: row["label"] for row in rows if row["keep"]} == {
        n: kept_as for n, (kept_as, _) in wanted.items()
    }
    assert all((row["reason"] is None) == row["keep"] for row in rows)
    assert len(rows) == len(samples)


@pytest.mark.parametrize("label", ["query", "soft"])
def test_a_table_decided_in_ranges_is_the_table_decided_at_once(tmp_path: Path, label: Any) -> None:
    rng = np.random.default_rng(0)
    samples, scores, human = [], [], ["sample_id,start_s,keep,label"]
    for number in range(60):
        name, query = f"{rng.integers(1 << 40):010x}", CLASSES[rng.integers(3)]
        samples.append(sample(name, query, "untrimmed", f"web{number % 2}"))
        for at in range(rng.integers(1, 7)):
            probs = [float(p) for p in rng.dirichlet([0.5] * 3).round(1)]  # rounded, so that there are ties
            scores.append(score(name, probs, query, "window", 10.0 * at))
        if number % 5 == 0:
            human.append(f"{name},{10 * rng.integers(6)},{'yes' if number % 2 else 'no'},")
    (tmp_path / "human.csv").write_text("\n".join(human))
    overrides = read_overrides(tmp_path / "human.csv", CLASSES)
    select = Select(threshold=0.6, label=label, cap_per_class=10, merge_windows=True)
    whole = run(tmp_path, samples, scores, select, overrides)
    assert whole == run(tmp_path, samples, scores, select, overrides, rows=17)
    assert [(row["sample_id"], row["start_s"]) for row in whole] == sorted(
        (s["sample_id"], s["start_s"]) for s in scores
    )
    assert {row["reason"] for row in whole} >= {None, "over_cap", "below_threshold", "merged", "human"}


def test_a_disk_too_full_for_what_exceeds_the_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's limit on the size of a file is the full disk."""
    with duckdb.connect() as db:
        db.execute(
            f"""COPY (SELECT format('{{:06d}}', i // 2) AS sample_id, 't' || i % 2 AS teacher, 'image' AS unit,
                NULL::DOUBLE AS start_s, NULL::DOUBLE AS end_s, [0]::INT[] AS top_classes, [1]::FLOAT[] AS top_probs,
                random()::FLOAT AS query_prob, [random()::FLOAT FOR c IN range(20)] AS probs, 'ok' AS status,
                NULL::VARCHAR AS reason, 0::FLOAT AS entropy, NULL::FLOAT[] AS feature
                FROM range(200000) AS t(i)) TO '{tmp_path}/scores.parquet'"""
        )
    write_table(tmp_path / "samples.parquet", SAMPLES.empty_table())
    monkeypatch.setattr("omnisource.curate.units.database", partial(database, memory=30_000_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with (
            pytest.raises(UserError, match=r"free some space \(or memory\), the same command resumes"),
            units(tmp_path / "scores.parquet", tmp_path / "samples.parquet", CLASSES) as db,
        ):
            db.execute("FROM units ORDER BY query_prob").fetchall()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in tmp_path.iterdir()} == {"scores.parquet", "samples.parquet"}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("unit", None, ".*column 'unit' has rows without a value"),
        ("unit", "video", "1 rows have no valid `unit`; write one of image, clip, window, frame"),
        ("teacher", None, ".*column 'teacher' has rows without a value"),
        ("query_prob", ..., ".*no column 'query_prob'"),
        ("query_prob", float("nan"), "1 rows have no probability from 0 to 1 in `query_prob`"),
        ("top_probs", [80.0, 10.0, 10.0], "1 rows have no probability from 0 to 1 in `top_probs`"),
    ],
)
def test_what_a_table_made_by_hand_lacks_is_named(tmp_path: Path, column: str, value: Any, message: str) -> None:
    scores = [score("a", [0.8, 0.1, 0.1], "jump"), score("b", [0.8, 0.1, 0.1], "jump")]
    by_hand = pa.schema([field.with_nullable(True) for field in SCORES])
    table = table_from_rows([scores[0], scores[1] | {column: None if value is ... else value}], by_hand)
    write_table(tmp_path / "scores.parquet", table.drop_columns([column]) if value is ... else table)
    write_table(tmp_path / "samples.parquet", table_from_rows([sample("a", "jump"), sample("b", "jump")], SAMPLES))
    with (
        pytest.raises(UserError, match=f"scores.parquet: {message}"),
        units(tmp_path / "scores.parquet", tmp_path / "samples.parquet", CLASSES) as db,
    ):
        list(decide(db, Select()))


@pytest.mark.parametrize(("words", "expected"), [([2e-12, 1e-12, 1e-12], 4e-12), ([0.0, 0.0, 0.0], 0.0)])
def test_a_teacher_that_says_next_to_nothing_of_our_classes_is_sure_of_none(
    tmp_path: Path, words: list[float], expected: float
) -> None:
    """Such as a file from elsewhere, by the smallest temperature: 1e-12 to the power of 50 is no number."""
    write_table(tmp_path / "scores.parquet", table_from_rows([score("a", words, "jump")], SCORES))
    write_table(tmp_path / "samples.parquet", table_from_rows([sample("a", "jump")], SAMPLES))
    temperatures = {("t", "image"): 0.02}
    with units(tmp_path / "scores.parquet", tmp_path / "samples.parquet", CLASSES, True, temperatures) as db:
        (table,) = decide(db, Select(rule="teacher", label="soft"))
    (row,) = table.to_pylist()
    assert (row["keep"], row["reason"]) == (False, "below_threshold")
    assert row["confidence"] == pytest.approx(expected, rel=1e-3)
