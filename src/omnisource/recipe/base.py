"""What every section of a recipe shares: unknown keys are refused, values are checked, objects are frozen."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a recipe. Field names are the YAML keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
