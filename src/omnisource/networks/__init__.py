"""The networks of the paper: build them, load and save their weights, start from other weights."""

from omnisource.networks.base import Network, freeze_norm, use_plain_form
from omnisource.networks.checkpoint import Meta, load_checkpoint, save_checkpoint
from omnisource.networks.create import create, is_spatial, names
from omnisource.networks.initialise import inflate, initialise
from omnisource.networks.weights import convert

__all__ = [
    "Meta",
    "Network",
    "convert",
    "create",
    "freeze_norm",
    "inflate",
    "initialise",
    "is_spatial",
    "load_checkpoint",
    "names",
    "save_checkpoint",
    "use_plain_form",
]
