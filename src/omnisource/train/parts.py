"""Parts of the target's training samples, each left out once, so that a teacher can be judged on what it never saw."""

import hashlib
from collections import Counter, defaultdict

from omnisource.errors import UserError
from omnisource.recipe import Recipe
from omnisource.tables import database, view_table
from omnisource.workspace import Workspace

PARTS = 5


def target_parts(recipe: Recipe, workspace: Workspace) -> list[frozenset[str]]:
    """The ids of the target's training samples, in up to `PARTS` parts: groups stay whole, classes are even.

    They depend on the samples alone, not on their order: groups come from large to small, each to the part that has
    least of its classes.

    Raises:
        UserError: nothing was ingested, or the samples are of fewer than two groups.
    """
    with database(workspace.root / "partial") as db:
        view_table(db, "samples", workspace.table("samples"))
        rows = db.execute(
            """SELECT sample_id, coalesce('group ' || "group", 'alone ' || sample_id), coalesce(label, '') FROM samples
            WHERE role = 'target' AND split = 'train' AND status = 'ok' AND list_contains(?, source) ORDER BY 1""",
            [recipe.target_sources],
        ).fetchall()
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for sample, group, label in rows:
        groups[group].append((sample, label))
    count = min(PARTS, len(groups))
    if count < 2:
        raise UserError(
            "select.calibrate.split: cross leaves out a part of the target's groups at a time, but its training samples"
            f" are of {len(groups)}; set `columns.group` to what is finer, or a temperature by hand"
        )
    parts: list[list[str]] = [[] for _ in range(count)]
    held: list[Counter[str]] = [Counter() for _ in range(count)]
    for group in sorted(groups, key=lambda name: (-len(groups[name]), hashlib.sha256(name.encode()).digest())):
        mine = Counter(label for _, label in groups[group])

        def crowded(part: int, mine: Counter[str] = mine) -> tuple[int, int, int]:
            return sum(number * held[part][label] for label, number in mine.items()), len(parts[part]), part

        best = min(range(count), key=crowded)
        parts[best] += [sample for sample, _ in groups[group]]
        held[best] += mine
    return [frozenset(part) for part in parts]
