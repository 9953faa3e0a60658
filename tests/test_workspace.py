"""A finished stage is not done again; a changed setting, input or output redoes it and what follows."""

import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from omnisource.errors import UserError
from omnisource.tables import DUPLICATES, Journal, read_table
from omnisource.workspace import Basis, Workspace, find_workspace, open_workspace


def stage(ws: Workspace, name: str, after: list[str], settings: dict[str, Any], done: list[str]) -> bool:
    out = ws.table(name)

    def work(fingerprint: str) -> Mapping[str, Any]:
        done.append(name)
        out.write_text(name)
        return {"rows": 1}

    return ws.run_stage(name, settings=settings, after=after, outputs=[out], work=work).fresh


def test_stages_are_done_once_and_redone_when_stale(tmp_path: Path) -> None:
    done: list[str] = []
    with open_workspace(tmp_path) as ws:
        assert stage(ws, "a", [], {"x": 1}, done)
        assert stage(ws, "b", ["a"], {}, done)
        assert not stage(ws, "a", [], {"x": 1}, done)
        assert not stage(ws, "b", ["a"], {}, done)
        ws.table("a").unlink()
        assert stage(ws, "a", [], {"x": 1}, done)
        assert stage(ws, "b", ["a"], {}, done)
        assert stage(ws, "a", [], {"x": 2}, done)
        assert stage(ws, "b", ["a"], {}, done)
        assert [record.stage for record in ws.records()] == ["a", "b"]
        last = Basis("b", {}, ["a"])
        assert ws.is_current(last) and not ws.is_current(Basis("b", {"x": 1}, ["a"]))
        assert not ws.is_current(Basis("c", {}, [])), "never done"
        ws.table("b").write_text("longer than it was")
        assert not ws.is_current(last)
        assert stage(ws, "b", ["a"], {}, done) and ws.is_current(last)
        assert stage(ws, "a", [], {"x": 3}, done) and not ws.is_current(last)
    assert done == [*["a", "b"] * 3, "b", "a"]


def test_a_failed_stage_has_no_record(tmp_path: Path) -> None:
    with open_workspace(tmp_path) as ws:
        with pytest.raises(RuntimeError):
            ws.run_stage("a", settings={}, after=[], outputs=[], work=lambda _: (_ for _ in ()).throw(RuntimeError()))
        assert ws.record("a") is None
        with pytest.raises(UserError, match="needs 'a', which has not run"):
            stage(ws, "b", ["a"], {}, [])


def test_two_processes_cannot_share_a_workspace(tmp_path: Path) -> None:
    code = "import sys, pathlib, omnisource.workspace as w\nwith w.open_workspace(pathlib.Path(sys.argv[1])): pass"
    with open_workspace(tmp_path):
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "another omnisource process" in other.stderr
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def test_what_a_killed_process_left_is_removed_and_journals_stay(tmp_path: Path) -> None:
    code = """if True:
        import os, pathlib, signal, sys
        import pyarrow as pa
        from omnisource.scratch import scratch
        from omnisource.tables import table_writer
        from omnisource.workspace import open_workspace
        with open_workspace(pathlib.Path(sys.argv[1])) as ws, table_writer(ws.table("decisions"), pa.schema([])):
            ws.partial("probe").mkdir(parents=True)
            (ws.partial("probe") / "fingerprint").write_text("mark")
            with scratch(ws.partial("probe").parent) as spill, scratch(ws.table("x").parent) as spilled:
                (spill / "samples").write_text("rows")
                (spilled / "scores").write_text("rows")
                os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)

    def left() -> list[str]:
        files = (
            path.relative_to(tmp_path) for folder in ("tables", "partial") for path in tmp_path.glob(f"{folder}/*")
        )
        return sorted(str(path) for path in files)

    assert len(left()) == 4
    with open_workspace(tmp_path):
        assert left() == ["partial/probe"]
        assert (tmp_path / "partial" / "probe" / "fingerprint").read_text() == "mark"


def test_half_written_files_of_a_killed_process_do_not_gather(tmp_path: Path) -> None:
    half = [tmp_path / name for name in (".camera.json.7.tmp", "report/.index.html.7.tmp", "runs/a-0/.last.7.part")]
    for path in (*half, tmp_path / "runs/a-0/state.pt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with open_workspace(tmp_path):
        assert not [path for path in half if path.exists()] and (tmp_path / "runs/a-0/state.pt").exists()


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be a workspace"), open_workspace(tmp_path / "file"):
        pass


def test_what_only_looks_makes_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no workspace here; `omnisource run`"), open_workspace(tmp_path, begin=False):
        pass
    assert not list(tmp_path.iterdir())
    with open_workspace(tmp_path):
        assert find_workspace(tmp_path).root == tmp_path
    with open_workspace(tmp_path, begin=False):
        pass


def test_a_missing_stage_names_the_verb(tmp_path: Path) -> None:
    with open_workspace(tmp_path) as ws:
        for before, verb in (("train-teacher-image", "train"), ("camera", "camera fit"), ("select-strict", "select")):
            with pytest.raises(UserError, match=f"run `omnisource {verb}`"):
                stage(ws, "b", [before], {}, [])


def test_a_failure_leaves_no_empty_workspace_behind(tmp_path: Path) -> None:
    place = tmp_path / "workspaces" / "new"
    with pytest.raises(UserError), open_workspace(place):
        raise UserError("no such source")
    assert not place.parent.exists()
    with pytest.raises(UserError), open_workspace(place) as workspace:
        workspace.table("samples").write_text("work")
        raise UserError("later")
    assert workspace.table("samples").exists()


def test_work_is_not_done_again_for_want_of_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed, or out of space, between the work and its record: the journal still holds all rows."""
    done = list[int]()

    def work(mark: str) -> dict[str, int]:
        journal = Journal(ws.partial("probe"), DUPLICATES, ["sample_id"], mark)
        done.append(len(journal.done()))
        journal.append([{"sample_id": str(n), "status": "ok"} for n in range(3)][len(journal.done()) :])
        journal.compact(ws.table("duplicates"))
        return {}

    with open_workspace(tmp_path) as ws:
        run = partial(ws.run_stage, "probe", settings={}, after=[], outputs=[ws.table("duplicates")], work=work)
        with monkeypatch.context() as full:
            full.setattr("omnisource.workspace.write_json", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run()
        assert run().fresh and done == [0, 3] and read_table(ws.table("duplicates")).num_rows == 3
        assert not run().fresh and not ws.partial("probe").exists()
