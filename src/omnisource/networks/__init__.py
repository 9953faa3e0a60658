"""The networks of the paper: build them, load and save their weights, start from other weights."""

from omnisource.networks.base import (
    Network,
    freeze_norm,
    freeze_trunk,
    fused,
    norms,
    running_statistics_kept,
    use_plain_form,
)
from omnisource.networks.checkpoint import Meta, load_checkpoint, read_meta, read_options, save_checkpoint
from omnisource.networks.cost import cost
from omnisource.networks.create import create, is_spatial, names, options_of, takes_frames
from omnisource.networks.files import convert_file, describe_file, read_weights
from omnisource.networks.foreign import ForeignNetwork
from omnisource.networks.initialise import InitKind, first_weights, inflate, initialise
from omnisource.networks.teachers import score_frames, score_images
from omnisource.networks.weights import convert, layouts

__all__ = [
    "ForeignNetwork",
    "InitKind",
    "Meta",
    "Network",
    "convert",
    "convert_file",
    "cost",
    "create",
    "describe_file",
    "first_weights",
    "freeze_norm",
    "freeze_trunk",
    "fused",
    "inflate",
    "initialise",
    "is_spatial",
    "layouts",
    "load_checkpoint",
    "names",
    "norms",
    "options_of",
    "read_meta",
    "read_options",
    "read_weights",
    "running_statistics_kept",
    "save_checkpoint",
    "score_frames",
    "score_images",
    "takes_frames",
    "use_plain_form",
]
