"""`flow:` how optical flow is computed and stored, for networks with `input.modality: flow`."""

from typing import Annotated, Literal

from pydantic import Field

from omnisource.recipe.base import Section


class Flow(Section):
    """Optical flow of the target's videos (two-stream networks; paper, section 4)."""

    method: Literal["tvl1", "dis"] = "tvl1"  # TV-L1 as in the literature; DIS is about a hundred times faster
    bound: Annotated[float, Field(gt=0)] = 20.0  # pixels of displacement that map to the ends of the 8-bit range
    short_side: Annotated[int, Field(ge=16)] | None = 256  # larger videos are scaled down to this first; null: never
    quality: Annotated[int, Field(ge=0, le=51)] = 10  # x264's rate factor; 0 stores the 8 bits without loss
    timeout_s: Annotated[float, Field(gt=0)] = 3600.0  # for one video
    workers: Annotated[int, Field(ge=1)] | None = None  # null: one for each CPU
