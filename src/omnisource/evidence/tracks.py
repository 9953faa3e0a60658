"""The datasets on which the method is measured: for each fold of each a recipe, as anybody would write it."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnisource.errors import UserError
from omnisource.recipe import Recipe

LABELLED_SHARE = 0.3  # of the groups, in `tennis-30`
_TENNIS = ["backhand", "forehand", "serve", "smash", "b_slice", "b_volley", "f_volley"]
_HOME = ["walk", "standup", "sitdown", "sit", "falling", "falled", "lying", "sleeping"]


@dataclass(frozen=True)
class Track:
    """A dataset with folds. Every fold is a recipe: its sources, and what its web samples really show."""

    name: str
    about: str
    folder: str  # below the data folder
    folds: tuple[int, ...]
    window_s: float
    sources: Callable[[Path, Path, int], Mapping[str, Any]]  # (data, where lists may be written, fold) -> sections

    def recipe(self, data: Path, place: Path, fold: int) -> Recipe:
        """The recipe of a fold: target alone and web data under the settings that all variants start from."""
        place.mkdir(parents=True, exist_ok=True)
        given = {
            "name": f"{self.name}-{fold}",
            "data": str(data),
            "teachers": {"image": training(), "video": training()},
            "student": training(),
            "score": {"window_s": self.window_s, "hop_s": self.window_s},
            "test": {"clips": 8, "crops": 3},
        }
        return Recipe.model_validate(given | dict(self.sources(data, place, fold)))


def training() -> dict[str, Any]:
    """A 2D network on a fixed ImageNet trunk (EfficientNet-lite0): what two CPU cores train in seconds."""
    return {
        "network": {
            "name": "tsn_efficientnet_lite0",
            "init": {"imagenet": "package"},
            "dropout": 0.5,
            "options": {"consensus": "mean-std-slope"},
        },
        "input": {"frames": 8, "short_side": 182, "size": 160, "min_area": 0.3},
        "epochs": 20,
        "batch": {"target": 32, "web_ratio": 1.0},
        "optimiser": {
            "kind": "adamw",
            "lr": 0.002,
            "weight_decay": 0.1,
            "warmup_epochs": 1,
            "clip_grad": 5,
            "trunk_lr_scale": 0,
        },
        "snippets": {"kind": "window"},
        "trunk_views": 4,
        "threads": 1,
    }


def _tennis(data: Path, place: Path, fold: int) -> dict[str, Any]:
    group = {"label": "label", "group": "group"}
    return {
        "classes": _TENNIS,
        "sources": {
            "target": {"role": "target", "path": "target.csv", "columns": group, "test": {"fold": fold}},
            **{
                name: {"role": "web", "format": form, "path": f"{name}.csv", "columns": {"label": "query"}}
                for name, form in (("images", "image"), ("clips", "clip"), ("untrimmed", "untrimmed"))
            },
        },
        "truth": {"files": ["images.csv", "clips.csv"], "column": "oracle"},
    }


def _tennis_30(data: Path, place: Path, fold: int) -> dict[str, Any]:
    given = _tennis(data, place, fold)
    hidden = [
        {"path": row["path"], "query": row["query"], "oracle": row["label"]}
        for row in _rows(data / "target.csv")
        if int(row["fold"]) != fold and float(row["rank"]) >= LABELLED_SHARE
    ]
    listed = place / "hidden.csv"
    with listed.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "query", "oracle"])
        writer.writeheader()
        # The truth of a list is looked up from where the list lies.
        writer.writerows({**row, "path": str(data / row["path"])} for row in hidden)
    source = {"role": "target", "path": "target.csv", "columns": {"label": "label", "group": "group"}}
    sources = {
        "target": source | {"where": {"rank": {"below": LABELLED_SHARE}}, "exclude": {"fold": fold}},
        "test": source | {"where": {"fold": fold}, "split": "test"},
        "hidden": {
            "role": "web",
            "format": "clip",
            "path": str(listed),
            "root": str(data),
            "columns": {"label": "query"},
        },
    }
    sources |= {name: value for name, value in given["sources"].items() if name != "target"}
    truth = {"files": [*given["truth"]["files"], str(listed)], "column": "oracle"}
    # In some folds a class has no labelled clip: it can be learned from the web alone.
    return given | {"sources": sources, "truth": truth, "unlabelled_classes": "allow"}


def _home(data: Path, place: Path, fold: int) -> dict[str, Any]:
    """One fold is tested on, the next is labelled, the untrimmed videos of the other two stand for the web."""
    web = [(fold + 2) % 4, (fold + 3) % 4]
    videos = sorted({f"{row['video']}.mp4" for row in _rows(data / "target.csv") if int(row["fold"]) in web})
    return {
        "classes": _HOME,
        "sources": {
            "target": {
                "role": "target",
                "path": "target.csv",
                "columns": {"group": "video"},
                "exclude": {"fold": web},
                "test": {"fold": fold},
            },
            "untrimmed": {
                "role": "web",
                "format": "untrimmed",
                "path": "untrimmed",
                "layout": "files",
                "where": {"path": videos},
            },
        },
        "truth": {"segments": "segments.csv", "min_overlap": 0.5},
    }


def _rows(path: Path) -> Sequence[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; --data names the folder that holds tennis/ and home/") from None


TRACKS = (
    Track("tennis-full", "seven tennis strokes, all training groups labelled", "tennis", (0, 1, 2, 3, 4), 2.0, _tennis),
    Track(
        "tennis-30",
        "the same with labels for three tenths of the groups; the other training clips are web clips",
        "tennis",
        (0, 1, 2, 3, 4),
        2.0,
        _tennis_30,
    ),
    Track(
        "home",
        "eight household actions under a ceiling camera; web: untrimmed videos",
        "home",
        (0, 1, 2, 3),
        5.0,  # about as long as the labelled clips
        _home,
    ),
)


def track_of(name: str) -> Track:
    """The track of that name."""
    for track in TRACKS:
        if track.name == name:
            return track
    raise UserError(f"no track '{name}'; tracks are: {', '.join(track.name for track in TRACKS)}")
