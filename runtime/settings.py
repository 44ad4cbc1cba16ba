"""Settings: validated when they are made, not changed afterwards, and each field an option of a command.

`runtime/cli/from_settings.py` makes the options; a field's description is its help.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hardroute.runtime.errors import SettingsError


class Settings(BaseModel):
    """Base of all settings. A value that makes no sense is a `SettingsError`, one line.

    Attributes:
        what: how a message calls them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    what: ClassVar[str] = "settings"

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            field, problem = first_problem(error)
            hidden = field in type(self).model_fields and not type(self).model_fields[field].repr
            raise SettingsError(self.what, field, "has the wrong type" if hidden else problem) from None

    def changed(self, **values: Any) -> Self:
        """The same with some fields replaced. Raises SettingsError."""
        return type(self)(**{**dict(self), **values})


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Name and fault, as in "max_bytes", "must be at least 1, got 0", of the first field that has one.

    The name is empty where it is several fields that do not fit together.
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
    return field, f"{text}, got {first['input']!r:.100}"
