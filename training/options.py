"""The settings of a run as command-line options: one for each field, so that the two cannot drift apart."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_origin

import typer

from hardroute.training.settings import FORMER, FitSettings


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives `command` an option for each field of FitSettings, and as `given` those that the user set.

    A field left out keeps its default, or that of the method.
    """
    own = inspect.signature(command).parameters
    added = [_option(name) for name in FitSettings.model_fields if name not in own]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        given = {name: value for name, value in values.items() if name not in own and value not in (None, [])}
        command(**{name: value for name, value in values.items() if name in own}, given=_parsed(given))

    parameters = [parameter for name, parameter in own.items() if name != "given"] + added
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def _option(name: str) -> inspect.Parameter:
    field = FitSettings.model_fields[name]
    kind: Any = field.annotation
    default = field.default * 255 if name == "eps" else field.default
    shown: Any = f"{default:g}" if isinstance(default, float) else default
    if name == "init":
        kind, shown = list[str], False
    elif get_origin(kind) is not None or kind not in (int, float, bool, str):
        kind = str
    if isinstance(shown, tuple):
        shown = ",".join(map(str, shown))
    flags = [f"--{each.replace('_', '-')}" for each in (name, *(old for old, new in FORMER.items() if new == name))]
    if kind is bool:
        flags = [f"{flags[0]}/--no-{flags[0][2:]}"]
    option = typer.Option(*flags, help=field.description, show_default=shown if shown is False else str(shown))
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _parsed(given: dict[str, Any]) -> dict[str, Any]:
    if "eps" in given:
        given["eps"] /= 255
    if "blocks" in given:
        given["blocks"] = given["blocks"].split(",")
    return given
