"""One command for a GPU that is at hand for minutes: first correctness against the CPU, then the benchmarks.

    python benchmarks/gpu_check.py

Correctness: every kind of network in fp32 (no TF32) on the GPU, called plainly and in `networks.fused`, and on the CPU,
from the same weights and input; logits must agree to 1e-3 of their spread. Then the networks' and the training
benchmark. Everything is cut off after `BUDGET_S`. Results: benchmarks/results/gpu-check.json, networks-gpu*.json,
training-*.json.
"""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from omnisource.networks import create, fused
from omnisource.workspace import versions

BUDGET_S = 530.0
RESULTS = Path(__file__).parent / "results"
NETWORKS = ["tsn_r50", "tsn_efficientnet_lite0", "slowonly_r50", "ircsn_r50", "ipcsn_r50", "i3d_r50", "i3d_inception"]
BENCHMARKS = (
    "networks.py --network slowonly_r50 ircsn_r152 slowonly_r101 --batch 8 --device cuda --amp bf16 --repeats 10 "
    f"--out {RESULTS / 'networks-gpu.json'}",
    "networks.py --network ircsn_r152 --norm frozen --batch 8 --device cuda --amp bf16 --repeats 10 "
    f"--out {RESULTS / 'networks-gpu-frozen.json'}",
    "training.py --network slowonly_r50 --width 0 --size 224 --frames 8 --batch 40 --device cuda --clock wall "
    "--workers 8",
)


def main() -> int:
    if not torch.cuda.is_available():
        print("no GPU that PyTorch can use; nothing checked")
        return 1
    started = time.monotonic()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    errors = {name: _error(name) for name in NETWORKS}
    for name, error in errors.items():
        print(f"{name}: {error:.1e} of the logits' spread off the CPU")
    report = {
        "command": "python benchmarks/gpu_check.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(),
        "versions": versions(),
        "relative_error": errors,
    }
    RESULTS.joinpath("gpu-check.json").write_text(json.dumps(report, indent=1) + "\n")
    for line in BENCHMARKS:
        left = BUDGET_S - (time.monotonic() - started)
        if left < 30:
            print(f"out of time: {line}")
            continue
        script, *arguments = line.split()
        try:
            subprocess.run([sys.executable, Path(__file__).with_name(script), *arguments], timeout=left, check=True)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            print(error)
    return int(max(errors.values()) > 1e-3)


def _error(name: str) -> float:
    torch.manual_seed(0)
    network = create(name, 16).eval()
    clip = torch.randn(2, 3, 16 if name.startswith("i3d") else 8, 112, 112)
    with torch.inference_mode():
        wanted = network(clip)
        found = [network.cuda()(clip.cuda()).cpu()]
        with fused(network):
            found.append(network(clip.cuda()).cpu())
    return max(float((logits - wanted).abs().max() / wanted.std()) for logits in found)


if __name__ == "__main__":
    sys.exit(main())
