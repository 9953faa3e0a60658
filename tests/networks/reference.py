"""The reference outputs in shared/parity: weights by rule, inputs by rule, expected scores and features."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

SHARED = Path(os.environ.get("OMNISOURCE_SHARED", Path(__file__).parents[3] / "shared"))
NAMES = (
    "tsn_r50_1x1x3",
    "slowonly_r50_4x16",
    "slowonly_r50_8x8",
    "slowonly_r101_8x8",
    "slowonly_r50_flow",
    "ircsn_r152_32x2",
    "i3d_r50_32x2",
    "i3d_r50_flow",
)


def _generator(tag: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(tag.encode()).digest()[:8], "big")))


@dataclass
class Case:
    """`state`: reference keys; `inputs` as our networks take them, (1, C, T, H, W); `features` (D,) or (T, D)."""

    network: str
    num_classes: int
    state: dict[str, Tensor]
    inputs: list[Tensor]
    logits: list[Tensor]
    features: list[Tensor]


def load(name: str) -> Case:
    folder = SHARED / "parity"
    if not (folder / f"{name}.json").is_file():
        pytest.skip(f"the parity vectors are not at {folder}; set OMNISOURCE_SHARED")
    facts, arrays = json.loads((folder / f"{name}.json").read_text()), np.load(folder / f"{name}.npz")
    salt, state = facts["salt"], {}
    for key, shape in facts["keys"].items():
        generator = _generator(f"{salt}:{key}")
        if f"bn/{key}" in arrays:
            value = arrays[f"bn/{key}"]
        elif key.endswith("num_batches_tracked"):
            value = np.int64(1)
        elif len(shape) >= 2:
            gain, fan_in = (1 if len(shape) == 2 else 2), int(np.prod(shape[1:]))
            value = (generator.standard_normal(shape) * np.sqrt(gain / fan_in)).astype(np.float32)
        elif key.endswith("bias"):
            value = (generator.standard_normal(shape) * 0.1).astype(np.float32)
        else:
            value = generator.uniform(0.8, 1.2, shape).astype(np.float32)
        state[key] = torch.as_tensor(value)
    inputs = []
    shape = facts["input_shape"]
    for i in range(2):
        generator = _generator(f"{salt}:input:{i}")
        coarse = generator.standard_normal((*shape[:-2], 8, 8)).repeat(shape[-2] // 8, -2).repeat(shape[-1] // 8, -1)
        x = torch.as_tensor((coarse + 0.3 * generator.standard_normal(shape)).astype(np.float32))
        # A 2D network's segments stand before the channels, a 3D network's views (one here) too.
        inputs.append(x.transpose(1, 2) if x.ndim == 5 else x[:, 0])
    return Case(
        network=name.removesuffix("_flow").rpartition("_")[0] if "flow" not in name else name.removesuffix("_flow"),
        num_classes=facts["num_classes"],
        state=state,
        inputs=inputs,
        logits=[torch.as_tensor(arrays[f"logits_{i}"]) for i in range(2)],
        features=[torch.as_tensor(arrays[f"feature_{i}"]) for i in range(2)],
    )
