"""`hardroute sign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hardroute.runtime.bundle import Bundle
from hardroute.runtime.cli import options
from hardroute.runtime.errors import HardrouteError


def sign(
    bundle: options.BundleFolder,
    key: Annotated[Path, typer.Option(help="PEM file of a private key: EC (P-256, P-384, P-521) or Ed25519.")],
    password_file: Annotated[Path | None, typer.Option(help="File whose first line is the key's password.")] = None,
    model_signature: Annotated[
        bool | None,
        typer.Option(
            "--model-sig/--no-model-sig",
            help="Sign the whole folder too, by OpenSSF model signing; default: if key and extra allow it.",
        ),
    ] = None,
) -> None:
    """Sign a bundle's certificate, and the whole bundle, with a key of yours."""
    from hardroute.runtime.bundle.signature import PublicKey, load_private_key
    from hardroute.runtime.bundle.signing import sign_certificate, sign_folder, why_no_folder

    password = _first_line(password_file) if password_file else None
    private = load_private_key(key, password)
    reason = "" if model_signature is None else "not asked for"
    if model_signature is not False:
        reason = why_no_folder(private)
        if model_signature and reason:
            raise HardrouteError(f"--model-sig: {reason}")
    opened = Bundle.open(bundle)
    typer.echo(f"signed {sign_certificate(opened, private)}")
    # Last, and over all the rest.
    if reason:
        typer.echo(f"no model.sig: {reason}")
    else:
        typer.echo(f"signed {sign_folder(opened, key, password)}")
    typer.echo(f"key {PublicKey.of(private, key.name).keyid}")


def _first_line(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(4096).split(b"\n")[0].rstrip(b"\r")
    except OSError as error:
        raise HardrouteError(f"password file {path}: cannot be read ({error.strerror})") from None
