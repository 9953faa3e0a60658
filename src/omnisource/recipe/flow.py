"""`flow:` how optical flow is computed and stored, for networks with `input.modality: flow`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from omnisource.recipe.base import Processes, Seconds, Section, VideoSide


class Flow(Section):
    """Optical flow of the target's videos (two-stream networks; paper, section 4)."""

    # TV-L1 as in the literature; DIS is about a hundred times faster; RAFT needs `omnisource[raft]` and `weights`
    method: Literal["tvl1", "dis", "raft"] = "tvl1"
    weights: str | None = None  # of RAFT: a file of torchvision's raft_large or raft_small; none are downloaded
    # Pixels of displacement that map to the ends of the 8-bit range.
    bound: Annotated[float, Field(gt=0, le=16_384)] = 20.0
    short_side: VideoSide | None = 256  # larger videos are scaled down to this first; null: never
    quality: Annotated[int, Field(ge=0, le=51)] = 10  # x264's rate factor; 0 stores the 8 bits without loss
    # Where flow videos are kept for every workspace that asks for the same, for instance those of several folds; null:
    # in the workspace.
    folder: str | None = None
    timeout_s: Seconds = 3600.0  # for one video
    device: str = "auto"  # where RAFT computes; on a GPU every worker has a network of its own there
    workers: Processes | None = None  # null: one for each CPU

    @model_validator(mode="after")
    def _raft_is_whole(self) -> "Flow":
        if self.method == "raft" and self.weights is None:
            raise ValueError("method raft needs `weights`, a file of torchvision's raft_large or raft_small")
        if self.method != "raft" and self.weights is not None:
            raise ValueError(f"weights are for method raft, not {self.method}")
        if self.method == "raft" and self.short_side is None:
            raise ValueError("method raft needs `short_side`: its memory grows with the fourth power of a frame's side")
        return self
