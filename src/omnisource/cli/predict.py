"""`omnisource predict`."""

import csv
import json
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnisource.progress import printable, say

if TYPE_CHECKING:
    from omnisource.predict import Guess, Prediction


class Form(StrEnum):
    """How predictions are printed."""

    table = "table"
    json = "json"
    csv = "csv"


def predict(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, or an exported .onnx file.", show_default=False)],
    inputs: Annotated[list[str], typer.Argument(help="Images, videos, folders, URLs.", show_default=False)],
    form: Annotated[Form, typer.Option("--format", help="How to print: json gives one object a line.")] = Form.table,
    top: Annotated[int, typer.Option(min=1, help="Guesses to show.")] = 3,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Clips (3D) or segments (2D) per file or window.", show_default="3 or 8")
    ] = None,
    crops: Annotated[int, typer.Option(help="Crops of each: 1, 3, 5 or 10.")] = 1,
    window: Annotated[float, typer.Option(help="Seconds of a window of a long video.")] = 10.0,
    hop: Annotated[float | None, typer.Option(help="Seconds between windows.", show_default="the window")] = None,
    annotate: Annotated[
        Path | None, typer.Option(help="Write copies with the guesses drawn on into this folder.", show_default=False)
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Fetch from private and loopback addresses too.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where the network runs: auto, cpu, cuda or cuda:1.")] = "auto",
) -> None:
    """Recognise images, clips and long videos with a trained network.

    Example: omnisource predict last.safetensors holiday.mp4 photos/ --annotate drawn
    """
    from omnisource.media import DEFAULT_LIMITS, shared_pool
    from omnisource.predict import Annotation, annotated_name, gathered, load
    from omnisource.predict import annotate as draw

    recogniser = load(checkpoint, device=device)
    with gathered(inputs, DEFAULT_LIMITS, allow_private) as files:
        found = recogniser.many(files.values(), top=top, clips=clips, crops=crops, window_s=window, hop_s=hop)
        said: list[Prediction] = []
        for name, prediction in zip(files, found, strict=True):
            said.append(prediction)
            _print(form, _named(prediction, name), first=len(said) == 1)
        if annotate is not None:
            tasks = [
                Annotation(p, annotate / annotated_name(_named(p, name)))
                for name, p in zip(files, said, strict=True)
                if p.reason is None
            ]
            with shared_pool(None, DEFAULT_LIMITS.timeout_s) as pool:
                for task, result in pool.map(draw, tasks):
                    wrote = result if isinstance(result, Path) else f"{task.out}: not written: {result.message}"
                    say(_in_line(str(wrote)))
    if all(prediction.reason for prediction in said):
        raise typer.Exit(1)


def _named(prediction: "Prediction", name: str) -> "Prediction":
    """The prediction under the name that the user gave: what was fetched lies in a folder that goes away."""
    message = prediction.message and prediction.message.replace(prediction.uri, name)
    return replace(prediction, uri=name, message=message)


def _print(form: Form, prediction: "Prediction", first: bool) -> None:
    match form:
        case Form.json:
            print(json.dumps(prediction.as_json()), flush=True)
        case Form.csv:
            _print_csv(prediction, first)
        case Form.table:
            _print_lines(prediction)


def _print_csv(prediction: "Prediction", first: bool) -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    if first:
        out.writerow(["uri", "start_s", "end_s", "rank", "label", "prob", "reason"])
    if prediction.reason:
        out.writerow([prediction.uri, "", "", "", "", "", prediction.reason])
    pieces: list[tuple[float | str, float | str, tuple[Guess, ...]]] = [("", "", prediction.top)]
    pieces += [(window.start_s, window.end_s, window.top) for window in prediction.windows]
    for start_s, end_s, guesses in pieces:
        for rank, guess in enumerate(guesses, start=1):
            out.writerow([prediction.uri, start_s, end_s, rank, guess.label, f"{guess.prob:.6f}", ""])


def _print_lines(prediction: "Prediction") -> None:
    print(_in_line(prediction.uri))
    if prediction.reason:
        print(f"  {prediction.reason}: {_in_line(prediction.message or '')}")
    for guess in prediction.top:
        print(f"  {guess.prob:7.2%}  {_in_line(guess.label)}")
    for window in prediction.windows:
        best = window.top[0]
        print(f"    {_clock(window.start_s)} to {_clock(window.end_s)}  {best.prob:7.2%}  {_in_line(best.label)}")


def _in_line(name: str) -> str:
    return printable(name.replace("\n", "\\n"))


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60):d}:{seconds % 60:04.1f}"
