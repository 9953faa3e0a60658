"""Times forward and training step of the networks, fast form beside plain form, in one run.

The plain form is torch's own Conv3d and BatchNorm3d in the default memory format, with the same weights. Where
mmaction2 is importable its network runs, too, from the same weights (benchmarks/reference.py), and the difference of
the logits is recorded. Forward passes run as scoring runs them, with the kernels of the fast form made once before
(networks.fused), and all before the first training step, whose memory would take part. On a CPU they also run side by
side, one to a lane, as scoring has them (seconds a clip, omnisource.infer.lanes); and all is timed twice: with the
C library's usual handling of memory, and with that of a training here (omnisource.train.memory).
`times_faster_as_run` is the other form's usual step over ours in a training, and its forward pass, alone or in a lane,
whichever is faster, over ours in a lane.

The forms take turns, and the least time of each counts, so that other work on the machine harms both alike. A product
of two matrices takes its turn with them: its rate is about the most that convolutions, computed as products, can reach
there.

    python benchmarks/networks.py --network slowonly_r50 ircsn_r152 --out benchmarks/results/networks-cpu.json
"""

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from reference import reference, version
from torch import Tensor, nn

from omnisource import __version__, networks
from omnisource.infer.lanes import Lanes
from omnisource.networks.create import usual_input
from omnisource.train.memory import freed_memory_kept

CLASSES = 400
PRODUCT = 1536  # side of the matrices
MMACTION = "mmaction2"
KEPT = ", freed memory kept"
LANES = "forward, in lanes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=["slowonly_r50", "ircsn_r152"], help="names, or all")
    parser.add_argument("--size", type=int, default=224, help="side of the clip, pixels")
    parser.add_argument("--frames", type=int, help="frames of the clip; default: the network's usual ones")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: the process's own seconds, for a busy machine"
    )
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own choice")
    parser.add_argument(
        "--norm", choices=["train", "frozen"], default="train", help="frozen: how video-pretrained irCSN is fine-tuned"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--amp", choices=["none", "bf16", "fp16"], default="none", help="autocast, both forms")
    parser.add_argument("--peak-tflops", type=float, help="the device's peak, for the share of it that is used (MFU)")
    parser.add_argument("--out", type=Path, help="where to write JSON")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    report: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "omnisource": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            MMACTION: version(),
        },
        "device": device_name(arguments.device),
        "threads": torch.get_num_threads(),
        "results": [],
    }
    print(json.dumps({key: value for key, value in report.items() if key != "results"}, indent=2))
    for name in networks.names() if arguments.network == ["all"] else arguments.network:
        result = measure(name, arguments)
        report["results"].append(result)
        print(json.dumps(result), flush=True)
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(report, indent=2) + "\n")


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Least seconds of a forward pass (evaluation) and of a training step, per form, and what follows from them."""
    device = torch.device(arguments.device)
    frames = arguments.frames or usual_input(name)[0]
    x = torch.randn(arguments.batch, 3, frames, arguments.size, arguments.size, device=device)
    y = torch.randint(CLASSES, (arguments.batch,), device=device)
    dtype = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}[arguments.amp]
    amp: Callable[[], Any] = nullcontext if dtype is None else lambda: torch.autocast(device.type, dtype)
    forms = forms_of(name, arguments.norm == "frozen", device)
    cpu = device.type == "cpu"
    ways = {"": nullcontext, **({KEPT: freed_memory_kept} if cpu else {})}
    seconds: dict[str, dict[str, float]] = {form: {} for form in forms}
    memory = dict.fromkeys(forms, 0)
    product = float("inf")
    matrix = torch.randn(PRODUCT, PRODUCT, device=device)

    def forwards(network: nn.Module) -> dict[str, float]:
        taken = {}
        for way, handling in ways.items():
            with handling():
                taken["forward" + way] = forward_seconds(network, x, amp, arguments.clock)
        return taken | ({LANES: lane_seconds(network, x, amp, arguments.clock)} if cpu else {})

    def steps(network: nn.Module) -> dict[str, float]:
        taken = {}
        network.train()
        for way, handling in ways.items():
            with handling():
                step(network, x, y, amp)
                taken["step" + way] = timed(partial(step, network, x, y, amp), device, arguments.clock)
        return taken

    for work in (forwards, steps):
        for repeat in range(arguments.repeats + 1):  # the first round warms up and does not count
            product = min(product, timed(partial(torch.mm, matrix, matrix), device, arguments.clock))
            for form, network in forms.items():
                if not cpu:
                    torch.cuda.reset_peak_memory_stats()
                taken, best = work(network), seconds[form]
                memory[form] = 0 if cpu else torch.cuda.max_memory_allocated()
                if repeat:
                    best.update({key: min(value, best.get(key, value)) for key, value in taken.items()})
    costs = networks.cost(name, CLASSES, frames, arguments.size)
    as_run, lane = (KEPT, LANES) if cpu else ("", "forward")
    ours = seconds["fast"]
    clips = arguments.batch / ours["step" + as_run]
    result: dict[str, Any] = {
        "network": name,
        "clip": [arguments.batch, 3, frames, arguments.size, arguments.size],
        "amp": arguments.amp,
        "norm": arguments.norm,
        "repeats": arguments.repeats,
        "clock": arguments.clock,
        "seconds": seconds,
        "gmacs": costs.macs / 1e9,
        "gmacs_per_s": {
            "product of matrices, fp32": PRODUCT**3 / product / 1e9,
            **{f"forward, {form}": costs.macs * arguments.batch / seconds[form]["forward"] / 1e9 for form in forms},
        },
        "step_clips_per_s": clips,
        "step_tflops": 6 * costs.macs * clips / 1e12,  # a step costs three forward passes, a MAC two operations
    }
    for form in forms:
        if form != "fast":
            than = "" if form == "plain" else f"_than_{form}"
            theirs = seconds[form]
            result["times_faster" + than] = {key: value / ours[key] for key, value in theirs.items()}
            result["times_faster_as_run" + than] = {
                "forward": min(theirs["forward"], theirs[lane]) / ours[lane],
                "step": theirs["step"] / ours["step" + as_run],
            }
    if MMACTION in forms:
        result["logits_from_mmaction2"] = {form: apart(forms[MMACTION], forms[form], x) for form in ("plain", "fast")}
    if arguments.peak_tflops:
        result["step_mfu"] = result["step_tflops"] / arguments.peak_tflops
    if not cpu:
        result["step_peak_bytes"] = memory
    return result


def forms_of(name: str, norms_frozen: bool, device: torch.device) -> dict[str, nn.Module]:
    """The network in every form, with the same weights."""
    networks_of = {form: build(name, form == "plain", device) for form in ("plain", "fast")}
    forms: dict[str, nn.Module] = dict(networks_of)
    theirs = reference(networks_of["fast"])
    if theirs is not None:
        networks_of["plain"].load_state_dict(networks_of["fast"].state_dict())
        theirs.norm_frozen = norms_frozen
        forms[MMACTION] = theirs.to(device)
    for network in networks_of.values() if norms_frozen else ():
        networks.freeze_norm(network)
    return forms


def apart(theirs: nn.Module, ours: nn.Module, x: Tensor) -> float:
    """The largest difference of the logits in evaluation."""
    theirs.eval()
    ours.eval()
    with torch.no_grad(), networks.fused(ours):
        return float((theirs(x) - ours(x)).abs().max())


def build(name: str, plain: bool, device: torch.device) -> networks.Network:
    """The same weights for both forms; the last norms of residual branches made 1, so that nothing is trivial."""
    torch.manual_seed(0)
    network = networks.create(name, CLASSES)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.ones_(module.weight)
    networks.use_plain_form(network, plain)
    return network.to(device)


def forward(network: nn.Module, x: Tensor, amp: Callable[[], Any]) -> None:
    with torch.no_grad(), amp():
        network(x)


def forward_seconds(network: nn.Module, x: Tensor, amp: Callable[[], Any], clock: str) -> float:
    """Seconds of one forward pass of evaluation, after one that warms up."""
    network.eval()
    with networks.fused(network):  # as scoring runs it: what can be made once is made before
        forward(network, x, amp)
        return timed(lambda: forward(network, x, amp), x.device, clock)


def lane_seconds(network: nn.Module, x: Tensor, amp: Callable[[], Any], clock: str) -> float:
    """Seconds a forward pass where as many run side by side as scoring runs."""
    network.eval()
    with networks.fused(network), Lanes(x.device) as lanes:

        def all_lanes(times: int) -> None:
            for future in [lanes.submit(lambda: forward(network, x, amp)) for _ in range(times * lanes.count)]:
                future.result()

        all_lanes(1)
        return timed(lambda: all_lanes(2), x.device, clock) / (2 * lanes.count)


def step(network: nn.Module, x: Tensor, y: Tensor, amp: Callable[[], Any]) -> None:
    network.zero_grad(set_to_none=True)
    with amp():
        loss = F.cross_entropy(network(x), y)
    loss.backward()


def timed(work: Callable[[], None], device: torch.device, clock: str) -> float:
    now = time.process_time if clock == "cpu" else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = now()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return now() - start


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor()
    return f"{model}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
