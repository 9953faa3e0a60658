"""A network over many files and views: every file decoded once, batches across files, decoding beside computing."""

from omnisource.infer.device import pick_device
from omnisource.infer.infer import Request, Result, infer
from omnisource.infer.network import forward

__all__ = ["Request", "Result", "forward", "infer", "pick_device"]
