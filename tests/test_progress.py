"""What a user wrote is printed as it is: nothing in it is markup, nothing an emoji, nothing is wrapped."""

import pytest
from rich.progress import TextColumn
from rich.table import Table

from omnisource.cli.common import tell
from omnisource.progress import Meter, console, meter, say, show
from omnisource.workspace import StageRecord

ODD = "[red]x[/] [/] [bold :x: a class with a very long name" + " and more" * 20


def test_lines_and_tables_print_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say(ODD, (ODD, "bold"))
    tell(StageRecord("train-[/]-0", "", "", {}, {"reason": "[b]"}))
    table = Table(title="[/]", box=None)
    table.add_column("[b]")
    table.add_row("[red]cell[/]")
    console.print(table)
    assert capsys.readouterr().err.splitlines()[:2] == [ODD + ODD, "train-[/]-0 nothing to do: reason [b]"]
    with console.capture() as caught:
        console.print(table)
    assert "[b]" in caught.get()
    assert "[red]cell[/]" in caught.get()


def test_a_name_does_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2J\u202eb \ud800", ("é🎾\r", "bold"))
    assert capsys.readouterr().err == "a\\x1b[2J\\u202eb \\ud800é🎾\\r\n"


def test_a_progress_bar_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_force_terminal", True)
    with console.capture(), meter("train [/]", 3) as bar:
        assert isinstance(bar, Meter)
        assert bar._bar is not None
        bar.advance(note="[red]")
        (task,) = bar._bar.tasks
        texts = [column.render(task).plain for column in bar._bar.columns if isinstance(column, TextColumn)]
    assert texts == ["train [/]", "[red]"]


def test_a_table_too_wide_is_folded_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_width", 40)
    table = Table("class", "found", box=None)
    table.add_row("x" * 90, "1234")
    with console.capture() as caught:
        show(table)
    assert caught.get().count("x") == 90
    assert "1234" in caught.get()
    assert all(len(line) <= 40 for line in caught.get().splitlines())


@pytest.mark.parametrize("width", [40, 80])
def test_a_progress_bar_keeps_its_count_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "_width", width)
    with console.capture() as caught, meter("a run that has a very long name", 1234) as bar:
        assert isinstance(bar, Meter)
        assert bar._bar is not None
        bar.advance(1000, note="a note " * 20)
        console.print(bar._bar.get_renderable())
    assert "1000/1234" in caught.get()
