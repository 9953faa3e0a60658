"""OmniSource: train video recognisers with the help of the web.

Everything that the command line does is a plain function. `run(recipe)` does it all; the functions of single stages
take `(recipe, workspace)`; `load(checkpoint)` gives a function from a video to its classes. More lives in the rooms:
`omnisource.collect.collect`, `omnisource.ingest.ingest`, `omnisource.networks`, `omnisource.clips` ...
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from omnisource.curate.dedupe import dedupe
    from omnisource.curate.probe import probe
    from omnisource.curate.score import score
    from omnisource.curate.select import select
    from omnisource.evaluate import test_run
    from omnisource.pipeline import run
    from omnisource.predict import load
    from omnisource.recipe import load_recipe
    from omnisource.report import write_report
    from omnisource.train import train_student, train_teacher
    from omnisource.workspace import open_workspace

__all__ = [
    "dedupe",
    "load",
    "load_recipe",
    "open_workspace",
    "probe",
    "run",
    "score",
    "select",
    "test_run",
    "train_student",
    "train_teacher",
    "write_report",
]

# Imported when they are asked for: a decoding process that needs `omnisource.media` must not pay for torch.
_HOMES = {
    "dedupe": "curate",
    "load": "predict",
    "load_recipe": "recipe",
    "open_workspace": "workspace",
    "probe": "curate",
    "run": "pipeline",
    "score": "curate",
    "select": "curate",
    "test_run": "evaluate",
    "train_student": "train",
    "train_teacher": "train",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'omnisource' has no attribute '{name}'")
    return getattr(import_module(f"omnisource.{_HOMES[name]}"), name)
