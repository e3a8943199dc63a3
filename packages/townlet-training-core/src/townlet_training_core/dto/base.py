"""The base of every record that crosses a seam or a disk, and validation errors in words."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["Record", "describe_errors"]


class Record(BaseModel):
    """A frozen record; unknown keys are refused and NaN survives JSON as the string ``"NaN"``."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, ser_json_inf_nan="strings", populate_by_name=True, defer_build=True
    )


def describe_errors(error: ValidationError, *, source: str, prefix: str = "") -> str:
    """Describe a validation error: one ``source: key.path: what was expected (got what)`` line per fault."""
    lines = []
    for fault in error.errors(include_url=False):
        path = ".".join([*([prefix] if prefix else []), *map(str, fault["loc"])])
        if fault["type"] == "extra_forbidden":
            reason = "unknown key; see 'townlet config schema' for the known ones"
        else:
            reason = f"{fault['msg'].removeprefix('Value error, ')} (got {fault['input']!r})"
        lines.append(f"{source}: {path}: {reason}" if path else f"{source}: {reason}")
    return "\n".join(lines)
