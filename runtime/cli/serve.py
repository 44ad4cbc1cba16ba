"""`hardroute serve`."""

from __future__ import annotations

import ipaddress
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from hardroute.runtime.cli import options
from hardroute.runtime.cli.from_settings import Options, with_settings
from hardroute.runtime.cli.trust_file import TrustFile
from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.service import ServiceSettings
from hardroute.runtime.service.settings import read_token
from hardroute.runtime.streams.address import showable, spelled_out

MIB = 2**20


@with_settings
def serve(
    *,
    bundle: options.BundleFolder,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8080,
    backend: options.BackendName = "cpu",
    threads: options.Threads = None,
    digest: options.Digest = None,
    trust: TrustFile = None,
    tolerance: options.Tolerance = None,
    log: options.Log = None,
    log_settings: options.LogOptions,
    settings: Annotated[ServiceSettings, Options(units={"max_upload": MIB}, without=("token",))],
    grace: Annotated[int, typer.Option(min=0, help="Seconds that requests under way get after SIGTERM.")] = 30,
    token_file: Annotated[Path | None, typer.Option(help="File with a token that clients must show.")] = None,
    watch: options.Wanted = None,
    watch_settings: options.WatchOptions,
    abstain: options.AbstainOptions,
    stream: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SOURCE", help="A file, folder, camera, URL, @FILE or env:NAME to serve as well."),
    ] = None,
) -> None:
    """Answer clips over HTTP: POST /v1/predict, /metrics, /healthz, /readyz. SIGTERM finishes what is under way."""
    # Dear to load, and of the extra `serve`; where that is missing, the command says so.
    import uvicorn

    from hardroute.runtime.service import Service, create_app

    if token_file:
        settings = settings.changed(token=read_token(token_file))
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(host, port))
        route_log = stack.enter_context(options.open_log(log, log_settings))
        engine = stack.enter_context(options.open_engine(bundle, backend, threads, digest, tolerance, trust))
        options.say_standing(engine.bundle)
        service = Service(
            engine,
            settings,
            log=route_log,
            watch=options.open_watch(engine.bundle, watch, watch_settings),
            abstain=options.open_abstain(abstain),
        )
        stack.callback(service.close)
        for name, source in map(_named_source, stream or []):
            service.hub.add(source, name=name)
        config = uvicorn.Config(
            create_app(service),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            http="h11",
            ws="none",
            timeout_graceful_shutdown=grace,
        )
        # Not before all is loaded; but whoever reads the line below may connect at once. Until now another process may
        # have had the same port.
        with _port(host, port):
            listener.listen(config.backlog)
        address = listener.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        state = "watched" if service.watch else "unwatched"
        typer.echo(f"serving {bundle} on http://{shown}:{address[1]}, {state} (SIGTERM or Ctrl-C ends it)")
        if settings.token is None and not ipaddress.ip_address(address[0]).is_loopback:
            typer.echo(
                f"warning: whoever reaches {shown} may use this; set --token-file, or a proxy that asks", err=True
            )
        server = uvicorn.Server(config)
        # uvicorn catches the signal while it serves and raises it again once it has shut down: then it has been
        # obeyed and must not kill. One that comes just before uvicorn listens for it is obeyed as well.
        signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
        server.run([listener])


def _named_source(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not (name and equals and source):
        raise HardrouteError(f"--stream {showable(text)}: expected NAME=SOURCE, as in door=rtsp://camera/1")
    first, *more = spelled_out(source)
    if more:
        raise HardrouteError(f"--stream {name}=...: {len(more) + 1} sources under one name; give each its own")
    return name, first


@contextmanager
def _port(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HardrouteError(f"cannot listen on {host}:{port}, choose another --host or --port: {error}") from None


def _listener(host: str, port: int) -> socket.socket:
    with _port(host, port):
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    return listener
