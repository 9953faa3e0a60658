"""The command line: what a user can mend is one line and status 2."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_starter import make
from typer.testing import CliRunner

from omnisource import __version__
from omnisource.cli import app
from omnisource.errors import UserError
from omnisource.networks import Meta, create, save_checkpoint


def omnisource(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "omnisource", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe that has been ingested (its clips are empty of pictures)."""
    folder = tmp_path_factory.mktemp("project")
    make(folder, *(f"clips/{label}/{n}.mp4" for label in ("jump", "wave") for n in range(4)))
    assert omnisource("init", ".", "--target", "clips", cwd=folder).returncode == 0
    assert omnisource("ingest", "recipe.yaml", cwd=folder).returncode == 0
    save_checkpoint(folder / "small.safetensors", create("slowonly_r18", 2, base_width=8), Meta(size=32))
    return folder


def test_version_and_help(tmp_path: Path) -> None:
    assert omnisource("--version", cwd=tmp_path).stdout.strip() == f"omnisource {__version__}"
    shown = omnisource("--help", cwd=tmp_path).stdout
    for verb in [
        "run",
        "init",
        "doctor",
        "ingest",
        "probe",
        "dedupe",
        "train",
        "score",
        "select",
        "test",
        "report",
        "demo",
    ]:
        assert re.search(rf"\b{verb}\b", shown), verb


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "none.yaml"], "no such recipe; `omnisource init` writes one"),
        (["ingest", "recipe.yaml", "--set", "student.epoch=1"], "unknown key 'student.epoch'; did you mean 'epochs'?"),
        (["ingest", "recipe.yaml", "--set", "sources.target.path=gone"], "gone: missing (sources.target.path)"),
        (["ingest", "recipe.yaml", "-w", "recipe.yaml/x"], "cannot be a workspace"),
        (["score", "recipe.yaml"], "run `omnisource"),
        (["report", "recipe.yaml"], "nothing tested yet"),
        (["init", "other", "--target", "nowhere"], "nowhere: no such folder or list (--target)"),
        (["export", "small.safetensors", "recipe.yaml/n.onnx"], "recipe.yaml/n.onnx: can't be written (File exists)"),
    ],
)
def test_one_line_and_status_2(project: Path, words: list[str], expected: str) -> None:
    done = omnisource(*words, cwd=project)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_said_in_one_line(project: Path) -> None:
    # No byte may be written to any file: as near to a full disk as a test comes without mounting one.
    command = f"trap '' XFSZ; ulimit -f 0; exec {sys.executable} -B -m omnisource ingest recipe.yaml -w full"
    done = subprocess.run(["bash", "-c", command], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "is full; free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((project / "full/tables").iterdir())


# The command line, whose stage `probe` waits to be interrupted.
_WAITING = """
import time
from pathlib import Path
import omnisource.curate
from omnisource.cli import main

def wait(*_):
    Path("reached").touch()
    time.sleep(600)

omnisource.curate.probe = wait
main()
"""


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_how_to_go_on(project: Path, by: signal.Signals) -> None:
    command = [sys.executable, "-c", _WAITING, "run", "recipe.yaml", "-w", "stopped"]
    process = subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (project / "reached").exists() and process.poll() is None:
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, by)
    _, said = process.communicate(timeout=200)
    (project / "reached").unlink(missing_ok=True)
    assert process.returncode == 128 + by, said
    whole = (
        f"run interrupted ({by.name}); what is finished is kept; for the rest: omnisource run recipe.yaml -w stopped"
    )
    assert whole in said
    assert "Traceback" not in said


_ABSENT = [
    *(f"{verb} RECIPE" for verb in ("probe", "prepare", "dedupe", "score", "calibrate", "select", "select --what-if")),
    *(f"{verb} RECIPE" for verb in ("camera fit", "camera sheet", "train", "flow", "test", "report")),
    "plan RECIPE --out p.parquet",
    "collect --status --classes names.txt --sources openverse",
    "provenance x",
    "forget --url http://example.org/x",
    "datasheet",
]


@pytest.mark.parametrize("words", _ABSENT)
def test_no_verb_but_those_that_begin_one_makes_a_workspace(
    words: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("jump\n")
    given = [str(project / "recipe.yaml") if word == "RECIPE" else word for word in words.split()]
    done = CliRunner().invoke(app, [*given, "-w", "mistyped"])
    assert isinstance(done.exception, UserError), done.output
    assert "mistyped: no workspace here" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["names.txt"]
