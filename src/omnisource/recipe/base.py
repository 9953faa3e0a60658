"""What every section of a recipe shares: unknown keys are refused, values are checked, objects are frozen.

Numbers have bounds on both sides: far above what anyone trains with, far below what only takes a machine down.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(gt=0, le=1e6)]  # ratios, rates, scales
Weight = Annotated[float, Field(ge=0, le=1e6)]
Spread = Annotated[float, Field(ge=1e-6, le=1e6)]  # a standard deviation
Epochs = Annotated[float, Field(gt=0, le=100_000)]
Seconds = Annotated[float, Field(gt=0, le=1e7)]
Pause = Annotated[float, Field(ge=0, le=1e7)]  # seconds, maybe none
Step = Annotated[float, Field(ge=0.01, le=1e7)]  # seconds between things that repeat over a whole film
Side = Annotated[int, Field(ge=1, le=16_384)]  # pixels
VideoSide = Annotated[int, Field(ge=16, le=16_384)]  # pixels of what is stored as video
Frames = Annotated[int, Field(ge=1, le=10_000)]  # or snippets, clips, views: of one sample; strides too
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Processes = Annotated[int, Field(ge=1, le=1024)]  # or threads
Count = Annotated[int, Field(ge=1, le=10**12)]  # of samples: costs nothing where there are fewer
Bytes = Annotated[int, Field(ge=0, le=2**60)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Section(BaseModel):
    """A part of a recipe. Field names are the YAML keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)
