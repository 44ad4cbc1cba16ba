"""`hardroute verify`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from hardroute.runtime.bundle import MODEL_SIGNATURE, Bundle, PublicKey, Trust, find_bundle
from hardroute.runtime.cli import options
from hardroute.runtime.cli.trust_file import TrustFile, load_trust
from hardroute.runtime.errors import BundleError, HardrouteError
from hardroute.runtime.files import printable

EXIT_REFUTED = 1
_T = TypeVar("_T")


def verify(
    bundle: options.BundleFolder,
    key: Annotated[list[Path] | None, typer.Option(help="PEM file of a public key that must have signed.")] = None,
    trust: TrustFile = None,
) -> None:
    """Say of a bundle, one fact a line, whether it is whole, who signed it, and whether a trust accepts it.

    Exit code 0: all of it holds; 1: something does not; 2: it cannot be judged.
    """
    if not (key or trust):
        raise HardrouteError("nobody to ask: give --key, --trust or both")
    keys = {path: PublicKey.load(path) for path in key or ()}
    believed = load_trust(trust)
    folder = find_bundle(bundle)
    facts = _Facts()
    opened = facts.holds(
        "files", lambda: Bundle.open(folder), lambda it: f"{len(it.manifest.files)}, all digests match"
    )
    if opened:
        for public in keys.values():
            only = Trust(keys=(public,))
            facts.holds(f"certificate by {public.name}", partial(only.verify, opened), lambda it: it.standing)
        if keys:
            _model_signature(facts, opened, keys)
        if believed:
            facts.holds(f"trust {trust}", lambda: believed.verify(opened), lambda it: it.standing)
    if facts.refuted:
        raise typer.Exit(EXIT_REFUTED)


def _model_signature(facts: _Facts, bundle: Bundle, keys: dict[Path, PublicKey]) -> None:
    """It has room for one key: one of those that can have made it must have."""
    from hardroute.runtime.bundle.signing import verify_folder, why_no_folder

    reasons = {path: why_no_folder(public.key) for path, public in keys.items()}
    able = [path for path, reason in reasons.items() if not reason]
    if MODEL_SIGNATURE not in bundle.signatures:
        facts.say("--", MODEL_SIGNATURE, "there is none")
    elif not able:
        facts.say("--", MODEL_SIGNATURE, f"not checked: {next(iter(reasons.values()))}")
    else:
        facts.holds(MODEL_SIGNATURE, lambda: verify_folder(bundle, able), lambda path: f"of these files, by {path}")


class _Facts:
    """Lines of what holds and what does not.

    Attributes:
        refuted: whether anything does not.
    """

    def __init__(self) -> None:
        self.refuted = False

    def say(self, verdict: str, what: str, text: str) -> None:
        typer.echo(f"{verdict} {printable(f'{what}: {text}')}")

    def holds(self, what: str, find: Callable[[], _T], describe: Callable[[_T], str]) -> _T | None:
        try:
            found = find()
        except BundleError as error:
            self.refuted = True
            self.say("NO", what, str(error))
            return None
        self.say("ok", what, describe(found))
        return found
