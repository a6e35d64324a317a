"""The base of every model of the job object, and the types that its fields share.

camelCase in YAML and JSON, unknown fields refused, no silent conversions ("3" is not 3). Every string and
list has a bound, so that a structural schema with CEL rules can be written from these models.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

URL_WITH_PASSWORD = "^[a-z0-9+.]+://[^/@]*:[^/@]*@"
"""Read alike by Python and by CEL."""

NO_PASSWORD = "a password does not belong into a job; use checkpoint.secret"


class ApiModel(BaseModel):
    """A frozen, strict part of the job object. Attributes are snake_case, its text is camelCase."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    def to_object(self) -> dict[str, Any]:
        """Plain JSON values with camelCase keys, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


Seconds = Annotated[int, Field(ge=0, le=10 * 365 * 86400)]
"""Whole seconds, at most ten years."""

_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def _label(value: str) -> str:
    if not re.fullmatch(_LABEL, value):
        raise ValueError(f"use lower-case letters, digits and dashes, as in bach-1; found {value!r}")
    return value


Name = Annotated[
    str,
    Field(min_length=1, max_length=63, json_schema_extra={"pattern": _LABEL}),
    AfterValidator(_label),
]
"""A DNS label: lower-case letters, digits and dashes, at most 63 characters."""

Text = Annotated[str, Field(max_length=1024)]
"""A line for people."""
