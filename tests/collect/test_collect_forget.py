"""Where a file came from, and taking it out again."""

import importlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import services
from collecting import CLASSES, order, run
from loopback_site import Site, file, jpeg

from omnisource.collect import datasheet, forget, provenance
from omnisource.errors import UserError
from omnisource.tables import read_table, table_from_rows, write_table
from omnisource.workspace import open_workspace


@pytest.mark.parametrize("kind", ["url", "author", "host", "sha256"])
def test_forget(site: Site, tmp_path: Path, kind: str) -> None:
    wanted = order([{"name": "openverse", "endpoint": services.openverse(site)}])
    _, rows = run(tmp_path, wanted)
    row = next(row for row in rows if row["url"].endswith("/openverse/4.jpg"))
    value = {"url": row["url"], "author": "author 1", "host": "127.0.0.1", "sha256": Path(row["uri"]).stem}[kind]
    gone = {"author": services.COUNT // 3, "host": services.COUNT}.get(kind, 1)
    with open_workspace(tmp_path) as workspace:
        result = forget(workspace, kind, value)
        left = read_table(workspace.table("collected")).num_rows
    assert (result.files, result.urls, result.rows) == (gone, gone, {"collected": gone})
    assert left == services.COUNT - gone and not Path(row["uri"]).exists()
    asked = site.asked["/openverse/4.jpg"]
    _, again = run(tmp_path, order([{"name": "openverse", "endpoint": f"{site.url}/v1/images/"}], ["volley"]))
    assert len(again) == services.COUNT - gone
    assert site.asked["/openverse/4.jpg"] == asked + (kind == "sha256")  # a content is only known once it is here
    memory = b"".join(path.read_bytes() for path in (tmp_path / "collect").iterdir())
    assert kind != "author" or b"author 1" not in memory


def test_forget_takes_training_forms_too_and_resumes(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rows = run(tmp_path, order([{"name": "openverse", "endpoint": services.openverse(site)}]))
    row, other = (next(r for r in rows if r["url"].endswith(f"/{n}.jpg")) for n in (4, 5))
    with open_workspace(tmp_path) as workspace:
        forms = [
            workspace.media_dir("prepared") / "form" / Path(r["uri"]).relative_to(workspace.media_dir("web"))
            for r in (row, other)
        ]
        workspace.report_path.parent.mkdir()
        for path in (*forms, workspace.report_path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        samples = read_table(workspace.table("collected"))
        mine = {"sample_id": "mine", "uri": "/elsewhere/a.jpg", "status": "ok", "url": row["url"]}
        names = ("source", "role", "format")
        added = table_from_rows([mine | {name: row[name] for name in names}], samples.schema)
        write_table(workspace.table("samples"), pa.concat_tables([samples, added]))
        write_table(workspace.table("units"), pa.table({"sample_id": samples["sample_id"]}))
        copy = workspace.ablation_dir / "own/fold-0/workspace/tables/samples.parquet"
        copy.parent.mkdir(parents=True)
        copy.write_text("")
        module = importlib.import_module("omnisource.collect.forget")
        for table in ("collected", "samples", "units"):

            def dies(path: Path, ids: set[str], table: str = table, remove: Any = module._remove_rows) -> int:
                return 1 // (path.stem != table) and remove(path, ids)

            with monkeypatch.context() as killed:
                killed.setattr(module, "_remove_rows", dies)
                with pytest.raises(ZeroDivisionError):
                    forget(workspace, "url", row["url"])
        result = forget(workspace, "url", row["url"])
        left = [read_table(workspace.table(name)).num_rows for name in ("collected", "samples", "units")]
        assert not workspace.report_path.exists() and not workspace.ablation_dir.exists()
    assert result.urls == 1 and result.rows == {"samples": 2} and left == [len(rows) - 1] * 3
    assert result.outside == ["/elsewhere/a.jpg"]
    assert not Path(row["uri"]).exists() and [path.exists() for path in forms] == [False, True]


def test_forget_says_which_runs_used_it(site: Site, tmp_path: Path) -> None:
    run(tmp_path, order([{"name": "openverse", "endpoint": services.openverse(site)}]))
    for name, source in (("all-0", "web-image"), ("target-only-0", "target")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text(
            json.dumps({"identity": {"units": {"sources": {source: 12}}}})
        )
    with open_workspace(tmp_path) as workspace:
        assert forget(workspace, "host", "127.0.0.1").runs == ["all-0"]
        with pytest.raises(UserError, match="forget what"):
            forget(workspace, "colour", "red")


def test_provenance_and_datasheet(site: Site, tmp_path: Path) -> None:
    _, rows = run(tmp_path, order([{"name": "openverse", "endpoint": services.openverse(site)}]))
    with open_workspace(tmp_path) as workspace:
        for what in (rows[0]["sample_id"], rows[0]["uri"], rows[0]["url"], Path(rows[0]["uri"]).stem):
            (found,) = provenance(workspace, what)
            assert found["url"] == rows[0]["url"]
            assert {find["query"] for find in found["finds"]} == set(CLASSES)
        with pytest.raises(UserError, match="no sample id"):
            provenance(workspace, "nothing")
        card = datasheet(workspace, "strokes")
    assert f"{services.COUNT} files" in card and "| cc0 | 23 |" in card and "| cc-by-sa | 22 |" in card
    assert "| forehand | 45 |" in card and "robots.txt obeyed" in card


def test_a_hostile_author_does_not_write_into_the_card(site: Site, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f'url,label\n{site.url}/a.jpg,"x|y<script>"\n')
    site.routes["/a.jpg"] = file(jpeg())
    run(tmp_path / "work", order([f"urls:{tmp_path}/list.csv"]))
    with open_workspace(tmp_path / "work") as workspace:
        assert "<script>" not in datasheet(workspace, "x")
