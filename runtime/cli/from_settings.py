"""The options of a command from settings classes: one for each field, so that the two cannot drift apart."""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from hardroute.runtime.errors import HardrouteError, SettingsError
from hardroute.runtime.settings import Settings


@dataclass(frozen=True)
class Options:
    """Marks a parameter of a command that is made of options, as in `log: Annotated[LogSettings, Options("log_")]`.

    Each field becomes the option `--{prefix}{name}` with its description as help, its default and its bounds.

    Attributes:
        prefix: of the options' names.
        names: fields whose option is called otherwise.
        units: fields that the option counts in so many.
        without: fields that have no option.
    """

    prefix: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, int] = field(default_factory=dict)
    without: tuple[str, ...] = ()


class _Group:
    """One parameter's settings class and its options."""

    def __init__(self, settings: type[Settings], options: Options) -> None:
        self._settings, self._units = settings, options.units
        wanted = {name: found for name, found in settings.model_fields.items() if name not in options.without}
        # Field -> name of the option, without the dashes.
        self._names = {name: options.names.get(name, options.prefix + name) for name in wanted}
        self.parameters = [self._parameter(name, found) for name, found in wanted.items()]

    def take(self, values: dict[str, Any]) -> Settings:
        """The settings from what was given, which leaves `values`. Raises HardrouteError, with the option's name."""
        found = {name: values.pop(option) for name, option in self._names.items()}
        given = {name: value * self._units.get(name, 1) for name, value in found.items() if value is not None}
        try:
            return self._settings(**given)
        except SettingsError as error:
            # Only names that are no English words.
            problem = re.sub(r"\b\w+_\w+\b", lambda match: self._flag(match[0]), error.problem)
            raise HardrouteError(f"{self._flag(error.field)} {problem}" if error.field else problem) from None

    def _flag(self, name: str) -> str:
        return f"--{self._names[name].replace('_', '-')}" if name in self._names else name

    def _parameter(self, name: str, found: FieldInfo) -> inspect.Parameter:
        kind, limits = _plain(found.annotation, tuple(found.metadata))
        unit = self._units.get(name, 1)
        default = None if found.is_required() or found.default_factory else found.default
        if default is not None and unit > 1:
            default //= unit
        return inspect.Parameter(
            self._names[name],
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[
                kind | None if default is None else kind,
                typer.Option(help=f"{found.description} {_range(limits) if unit == 1 else ''}".rstrip()),
            ],
        )


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives `command` the options of each parameter that is marked with `Options`, in that parameter's place."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, _Group] = {}
    parameters: list[inspect.Parameter] = []
    for name, own in inspect.signature(command).parameters.items():
        annotation = hints[name]
        marks = [mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, Options)]
        if marks:
            groups[name] = _Group(get_args(annotation)[0], marks[0])
            parameters += groups[name].parameters
        else:
            parameters.append(own.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        made = {name: group.take(values) for name, group in groups.items()}
        command(**values, **made)

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def _plain(annotation: Any, limits: tuple[Any, ...] = ()) -> tuple[Any, tuple[Any, ...]]:
    """What a command line can read of a field's type, and the bounds in it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        more = [limit for one in more for limit in (one.metadata if isinstance(one, FieldInfo) else (one,))]
        return _plain(inner, (*limits, *more))
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
        return _plain(kinds[0], limits) if len(kinds) == 1 else (str, ())
    if origin is Literal:
        return str, ()
    if annotation not in (int, float, bool, str, Path):
        raise TypeError(f"a field of type {annotation} cannot be an option; name it in `without`")
    return annotation, limits


def _range(limits: tuple[Any, ...]) -> str:
    """Bounds as the command line shows others: "[0<x<=1]"; empty where there are none."""
    found = {
        name: getattr(limit, name) for limit in limits for name in ("ge", "gt", "le", "lt") if hasattr(limit, name)
    }
    low = next(((found[name], sign) for name, sign in (("ge", "="), ("gt", "")) if name in found), None)
    high = next((f"x<{sign}{found[name]:g}" for name, sign in (("le", "="), ("lt", "")) if name in found), None)
    if low and high:
        return f"[{low[0]:g}<{low[1]}{high}]"
    return f"[x>{low[1]}{low[0]:g}]" if low else f"[{high}]" if high else ""
