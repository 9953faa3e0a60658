"""OmniSource: train video recognisers with the help of the web.

Everything that the command line does is a plain function. `run(recipe)` does it all; the functions of single stages take
`(recipe, workspace)`; `load(checkpoint)` gives a function from a video to its classes. More lives in the rooms
(`omnisource.networks`, `omnisource.clips`, `omnisource.evaluate` ...).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from omnisource.collect import collect as collect
    from omnisource.curate import dedupe as dedupe
    from omnisource.curate import probe as probe
    from omnisource.curate import score as score
    from omnisource.curate import select as select
    from omnisource.evaluate import test_run as test_run
    from omnisource.ingest import ingest as ingest
    from omnisource.pipeline import run as run
    from omnisource.predict import load as load
    from omnisource.recipe import load_recipe as load_recipe
    from omnisource.report import write_report as write_report
    from omnisource.train import train_student as train_student
    from omnisource.train import train_teacher as train_teacher
    from omnisource.workspace import open_workspace as open_workspace

# Imported when they are asked for: a decoding process that needs `omnisource.media` must not pay for torch.
_HOMES = {
    "collect": "collect",
    "dedupe": "curate",
    "ingest": "ingest",
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
