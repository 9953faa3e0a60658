"""A network over many files and views: every file decoded once, batches across files, decoding beside computing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from omnisource.infer.parts import Request

if TYPE_CHECKING:
    from omnisource.infer.device import pick_device, torch_threads
    from omnisource.infer.network import forward
    from omnisource.infer.run import Result, infer

__all__ = ["Request", "Result", "forward", "infer", "pick_device", "torch_threads"]

# What computes is imported when it is first asked for: the processes that decode start without torch.
_COMPUTING = {"pick_device": "device", "torch_threads": "device", "Result": "run", "infer": "run", "forward": "network"}


def __getattr__(name: str) -> Any:
    if name in _COMPUTING:
        return getattr(import_module(f"{__name__}.{_COMPUTING[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
