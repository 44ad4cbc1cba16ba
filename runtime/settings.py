"""Settings: validated when they are made, not changed afterwards, and each field an option of a command.

`runtime/cli/from_settings.py` makes the options; a field's description is its help.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from hardroute.runtime.errors import SettingsError


class Settings(BaseModel):
    """Base of all settings. A value that makes no sense is a `SettingsError`, one line.

    Attributes:
        what: how a message calls them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    what: ClassVar[str] = "settings"

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, values: object, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(values)
        except ValidationError as error:
            secret = [name for name, field in cls.model_fields.items() if not field.repr]
            raise SettingsError(cls.what, *_first_problem(error, secret)) from None

    def changed(self, **values: Any) -> Self:
        """The same with some fields replaced. Raises SettingsError."""
        return type(self)(**{**dict(self), **values})


def _first_problem(error: ValidationError, secret: Collection[str]) -> tuple[str, str]:
    """Name and fault, as in "max_bytes", "must be at least 1, got 0", of the first field that has one.

    The name is empty where it is several fields that do not fit together. What was given for one of `secret` is not
    repeated.
    """
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return field, "is no setting"
    if first["type"] == "value_error":
        return field, str(first["ctx"]["error"])
    text = first["msg"].removeprefix("Input should ")
    text = f"must {text}" if text != first["msg"] else f"cannot be used: {text}"
    for long, short in (("greater than or equal to", "at least"), ("less than or equal to", "at most")):
        text = text.replace(long, short)
    return field, text if field in secret else f"{text}, got {first['input']!r:.100}"
