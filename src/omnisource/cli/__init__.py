"""The command line: one thin file per verb."""

import errno
import io
import shlex
import signal
import sys
from contextlib import suppress
from typing import NoReturn

import typer

from omnisource import __version__
from omnisource.cli.ablate import ablate
from omnisource.cli.bench import app as bench
from omnisource.cli.calibrate import calibrate
from omnisource.cli.camera import camera
from omnisource.cli.collect import collect
from omnisource.cli.compare import compare
from omnisource.cli.datasheet import datasheet
from omnisource.cli.dedupe import dedupe
from omnisource.cli.demo import demo
from omnisource.cli.doctor import doctor
from omnisource.cli.export import export
from omnisource.cli.flow import flow
from omnisource.cli.forget import forget
from omnisource.cli.fuse import fuse
from omnisource.cli.ingest import ingest
from omnisource.cli.init import init
from omnisource.cli.plan import plan
from omnisource.cli.predict import predict
from omnisource.cli.prepare import prepare
from omnisource.cli.probe import probe
from omnisource.cli.provenance import provenance
from omnisource.cli.report import report
from omnisource.cli.run import run
from omnisource.cli.score import score
from omnisource.cli.select import select
from omnisource.cli.test import test
from omnisource.cli.train import train
from omnisource.cli.weights import app as weights
from omnisource.errors import NO_ROOM, UserError, UserErrors
from omnisource.interrupts import came, heed_signals
from omnisource.progress import say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="OmniSource: train video recognisers with the help of the web.",
)

_HALF = 1000  # characters of a message


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"omnisource {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """OmniSource: train video recognisers with the help of the web."""


# A verb is a function in the file of its name; its docstring is its help. In the order of the way of the data.
app.command()(run)
app.command()(demo)
app.command()(init)
app.command()(doctor)
app.command()(collect)
app.command()(ingest)
app.add_typer(weights, name="weights")
app.command()(probe)
app.command()(prepare)
app.command()(dedupe)
app.command()(score)
app.command()(calibrate)
app.command()(select)
app.add_typer(camera, name="camera")
app.command()(plan)
app.command()(train)
app.command()(flow)
app.command()(test)
app.command()(compare)
app.command()(fuse)
app.command()(ablate)
app.add_typer(bench, name="bench")
app.command()(report)
app.command()(predict)
app.command()(export)
app.command()(provenance)
app.command()(forget)
app.command()(datasheet)


def main() -> None:
    """Runs the command line; what a user can mend becomes one line and exit status 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold what is no text
    heed_signals()
    try:
        app()
    except UserErrors as error:
        _fail("\n".join(map(_one_line, error.problems)), 2)
    except UserError as error:
        _fail(_one_line(str(error)), 2)
    except KeyboardInterrupt as interrupt:
        _interrupted(interrupt)
    except SystemExit as end:
        if end.code == 130:  # typer's word for Ctrl-C
            _interrupted(end)
        raise
    except OSError as error:
        if came:  # the terminal went away, and with it what was to be said
            _interrupted(error)
        if error.errno in NO_ROOM:
            _fail(f"{error.filename or 'disk'}: no room left; free some space, the same command resumes", 2)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            _fail(f"{error.filename}: {error.strerror}; mend its permissions", 2)
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            _fail(f"{error.filename}: {error.strerror}; choose another place to write to", 2)
        raise


def _interrupted(error: BaseException) -> NoReturn:
    """Says what was interrupted and how to go on; the status is a shell's for a process that a signal ended."""
    number = came[0] if came else signal.SIGINT
    cause: BaseException | None = error
    while cause is not None and not hasattr(cause, "__notes__"):
        cause = cause.__cause__ or cause.__context__
    command = shlex.join(["omnisource", *sys.argv[1:]])
    if cause is not None:  # a stage noted its name
        said = f"{cause.__notes__[0]} interrupted ({number.name}); what is done is kept, the same command resumes"
    else:  # between stages, or in what is no stage, such as predicting
        said = f"{' '.join(sys.argv[1:2])} interrupted ({number.name}); what is finished is kept; for the rest"
    _fail(f"{said}: {command}", 128 + number)


def _one_line(message: str) -> str:
    """A message without line breaks; of a very long one its beginning, which names the file, and its end, the cure."""
    line = " ".join(message.split())
    return line if len(line) <= 2 * _HALF else f"{line[:_HALF]} ... {line[-_HALF:]}"


def _fail(message: str, status: int) -> NoReturn:
    with suppress(OSError):  # nobody reads it any more
        say(("omnisource: ", "bold red"), message)
    sys.exit(status)
