"""The base of all request and answer types: tolerant parsing of answers, and serialisation of requests."""

import contextlib
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    TypeAdapter,
    model_validator,
)

_DATETIME = TypeAdapter(datetime)


def _moment(value: object) -> datetime | None:
    if value is None or value == "":
        return None
    with contextlib.suppress(ValueError):  # pydantic's ValidationError is one
        return _DATETIME.validate_python(value)
    return None


def _aware(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


Moment = Annotated[datetime | None, BeforeValidator(_moment), AfterValidator(_aware)]
"""A date and time, UTC where the platform names no zone; None where it is missing or not readable."""


def _reveal(value: SecretStr, info: SerializationInfo) -> str:
    return value.get_secret_value() if isinstance(info.context, dict) and info.context.get("reveal") else str(value)


Secret = Annotated[SecretStr, PlainSerializer(_reveal, return_type=str)]
"""A value that is shown masked, except where a request is written (`Wire.to_wire`)."""


class Wire(BaseModel):
    """Base of everything that goes over the wire."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_missing(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data

    def __repr_args__(self) -> Any:
        """Show declared fields only: nobody knows what an undeclared one holds."""
        return [(name, value) for name, value in super().__repr_args__() if name in type(self).model_fields]

    def to_wire(self) -> dict[str, Any]:
        """Write it as the body of a request: without what is None, and with secrets readable."""
        return self.model_dump(mode="json", exclude_none=True, context={"reveal": True})
