"""`probe:`, `dedupe:`, `score:`, `select:` how web data becomes training data (paper, sections 3.1 to 3.3)."""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from omnisource.recipe.base import (
    BatchSize,
    Count,
    Frames,
    Seconds,
    Section,
    Share,
    Side,
    Spread,
    Step,
    VideoSide,
)

Unit = Literal["image", "clip", "window", "frame"]
UNITS: tuple[Unit, ...] = get_args(Unit)


class Limits(Section):
    """What one file may cost. Beyond it the file is dropped with the reason."""

    max_pixels: Count = 50_000_000  # of one picture
    max_duration_s: Seconds = 4 * 3600.0
    max_bytes: Count = 8 * 2**30
    timeout_s: Seconds = 60.0
    memory_bytes: Count = 3 * 2**30  # by which the process that works on it may grow; in training and testing: 2 GiB


class Probe(Section):
    """Which files count as broken."""

    thorough: bool = False  # decode every frame instead of a sample
    min_decodable_share: Share = 0.9  # a damaged file below this is dropped
    limits: Limits = Limits()


class Prepare(Section):
    """The optional form in which media are stored once more for training (`omnisource prepare`)."""

    short_side: VideoSide = 256  # pixels; smaller media keep their size
    gop: Frames | None = None  # frames between key frames; null: the student's stride
    crf: Annotated[int, Field(ge=0, le=51)] = 20  # quality of H.264, 0 is lossless
    jpeg_quality: Annotated[int, Field(ge=1, le=95)] = 92
    timeout_s: Seconds = 3600.0  # for one file


class Dedupe(Section):
    """What counts as the same. The paper removes web samples close to the target's val and test splits."""

    exact: bool = True  # within the web, by sha256
    phash_distance: Annotated[int, Field(ge=0, le=64)] | None = 4  # within the web, by perceptual hash; null: off
    against_test: bool = True  # by whitened trunk features
    # auto: half-way between the mean similarity of crops of the same frame (paper) and what other films reach by chance
    threshold: Annotated[float, Field(ge=-1, le=1)] | Literal["auto"] = "auto"
    # compare what comes near moment by moment: it goes only if the same things move at the same times
    second_look: bool = True
    frames: Frames = 5  # compared per web video
    test_frames: Frames = 16  # per val and test video: a copy may show any moment of it
    network: str = "tsn_efficientnet_lite0"  # trunk for the features
    init: str = "imagenet"  # `imagenet`, or a weights file


class ForeignTeacher(Section):
    """A trained network from elsewhere as a teacher: a file of ONNX (.onnx) or TorchScript (.pt, .pth, .ts)."""

    file: str
    classes: list[str] | str  # names of its outputs in their order, or a file with one a line
    map: dict[str, list[str]] = {}  # our class -> its classes, probabilities added; not named: its class of that name
    layout: Literal["NCHW", "NCTHW", "NTCHW"] = "NCHW"  # NCHW: a 2D network, shown one frame at a time
    output: Literal["logits", "probs"] = "logits"  # what it gives
    frames: Frames = 8  # of a clip, for 3D networks
    stride: Frames = 8  # from one of them to the next, in frames of the video
    short_side: Side = 256  # frames are scaled to this before the crop
    size: Side = 224  # side of the crop
    # Of pixels from 0 to 255; a network that wants them from 0 to 1 has mean 0 and std 255.
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[Spread, Spread, Spread] = (58.395, 57.12, 57.375)
    device: str = "auto"


class Score(Section):
    """Which teacher scores which unit, and how."""

    image: list[str] = ["image"]  # teachers, averaged
    frame: list[str] = ["image"]  # frames of untrimmed videos, for 2D students
    clip: list[str] = ["video"]  # short videos
    window: list[str] = ["video"]  # windows of untrimmed videos, for 3D students
    window_s: Step = 10.0  # length of a window
    hop_s: Step = 10.0  # from the beginning of one to that of the next
    frames_per_second: Annotated[float, Field(gt=0, le=1000)] = 1.0  # of untrimmed videos, for `frame`
    views: Frames = 1  # clips (3D) per window or clip
    segments: Frames = 8  # frames (2D) per window or clip
    batch: BatchSize = 16  # views in one forward pass
    top_k: Count = 5  # classes whose probabilities are stored, the likeliest first
    probs: bool = True  # store all classes' probabilities (several teachers for one unit and soft labels need them)
    features: bool = False  # store trunk features too


class Calibrate(Section):
    """Ours, off by default: thresholds and probabilities that follow from data instead of being set by hand."""

    # p becomes p^(1/T), scaled to its old sum. A T for all, above 1 for teachers that are surer than they should be, as
    # those of few labels are; or one T for each teacher and unit, found on held-out target samples: true fits it to
    # them, matched makes the teacher on average as sure of the web as it is right there.
    temperature: bool | Literal["matched"] | Annotated[float, Field(ge=0.02, le=50)] = False
    # How far (0 to 1) the shares of the classes in what teachers say of units without a query are brought to those of
    # the target: where nobody searched, a teacher's words may be lopsided.
    align: Share = 0.0
    quantile: Annotated[float, Field(gt=0, le=1)] | None = None  # keep the surest of each source's units of a class
    # For each class the lowest threshold above which this share of held-out target samples is what the teacher says.
    precision: Share | None = None
    min_samples: Count = 5  # above a class's threshold; with fewer the class takes that of all
    # Of the target: val, on which nothing is trained; cross: the training samples, a fifth at a time, each judged by
    # teachers that are trained once more without it; train: only for foreign teachers, which never saw it.
    split: Literal["val", "train", "cross"] = "val"

    @property
    def held_out(self) -> bool:
        """Whether held-out samples must be scored."""
        return self.temperature is True or self.temperature == "matched" or self.precision is not None

    @property
    def crossed(self) -> bool:
        """Whether teachers are trained once more without a part of the target (`split: cross`)."""
        return self.held_out and self.split == "cross"

    @model_validator(mode="after")
    def _one_at_most(self) -> "Calibrate":
        if self.quantile is not None and self.precision is not None:
            raise ValueError("give quantile or precision, not both")
        if self.align and self.precision is not None:
            raise ValueError("give align or precision, not both: held-out samples say nothing of aligned probabilities")
        return self


class Select(Section):
    """Which scored units train, and under which label."""

    # Selections of other names stay beside this one.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,80}$")] = "default"
    # agree: the teacher's best class is the query's, with at least `threshold`;
    # query: the query class's probability reaches it; teacher: the best class's does; all: keep everything.
    rule: Literal["agree", "query", "teacher", "all"] = "agree"
    threshold: Share = 0.3  # least probability
    per_source: dict[str, Share] = {}  # thresholds of single sources
    per_class: dict[str, Share] = {}  # thresholds of single classes; they win over all others
    calibrate: Calibrate = Calibrate()  # thresholds of classes found in data, below `per_class` and above `per_source`
    # The query's class, the teacher's best, or the probabilities of all classes.
    label: Literal["query", "teacher", "soft"] = "query"
    # Ours: the query counts as evidence beside the teacher, as much as it proves right; the rules and soft labels then
    # speak of both together. For teachers that are weaker than the web's own labels.
    query_evidence: bool = False
    # Ours: of several teachers of a unit (`score.clip: [image, video]`) all must have the same best class, whatever the
    # rule, which then looks at their average as ever.
    unanimous: bool = False
    cap_per_class: Count | None = None  # keep only the surest so many of each source, kind of unit and class
    merge_windows: bool = False  # kept windows of one label that touch become one long one
    negative_below: Share = 0.1  # a frame below this in its video's class is a negative snippet
    overrides: str | None = None  # CSV of human decisions (sample_id, keep, maybe start_s, unit, label); they win

    @model_validator(mode="after")
    def _a_threshold_to_find(self) -> "Select":
        if self.rule == "all" and (self.calibrate.quantile is not None or self.calibrate.precision is not None):
            raise ValueError("the rule `all` has no threshold: remove calibrate.quantile and calibrate.precision")
        if self.query_evidence and self.calibrate.precision is not None:
            raise ValueError(
                "give query_evidence or calibrate.precision, not both: nobody searched for the held-out samples, "
                "so they say nothing of query and teacher together"
            )
        return self

    @property
    def stage(self) -> str:
        """The stage that makes this selection; selections of other names stay finished beside it."""
        return "select" if self.name == "default" else f"select-{self.name}"
