"""The typed recipe."""

from omnisource.recipe.collect import Collect, CollectSource
from omnisource.recipe.curation import Calibrate, Dedupe, ForeignTeacher, Limits, Prepare, Probe, Score, Select
from omnisource.recipe.flow import Flow
from omnisource.recipe.load import load_recipe
from omnisource.recipe.recipe import ALL, TARGET_ONLY, Recipe, read_names
from omnisource.recipe.sources import Range, Source
from omnisource.recipe.testing import Run, Test, Truth
from omnisource.recipe.training import (
    Batch,
    Camera,
    Init,
    Input,
    Mixup,
    Network,
    Optimiser,
    Resample,
    Snippets,
    Training,
)

__all__ = [
    "ALL",
    "TARGET_ONLY",
    "Batch",
    "Calibrate",
    "Camera",
    "Collect",
    "CollectSource",
    "Dedupe",
    "Flow",
    "ForeignTeacher",
    "Init",
    "Input",
    "Limits",
    "Mixup",
    "Network",
    "Optimiser",
    "Prepare",
    "Probe",
    "Range",
    "Recipe",
    "Resample",
    "Run",
    "Score",
    "Select",
    "Snippets",
    "Source",
    "Test",
    "Training",
    "Truth",
    "load_recipe",
    "read_names",
]
