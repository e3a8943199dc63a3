"""The base of every record that crosses a seam or a disk."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Record"]


class Record(BaseModel):
    """A frozen record; unknown keys are refused and NaN survives JSON as the string ``"NaN"``."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings", populate_by_name=True)
