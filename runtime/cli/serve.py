"""`python -m runtime serve`."""

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
from hardroute.runtime.cli.watch_options import AbstainBelow, Every, FalseAlarm, Wanted, open_abstain, open_watch
from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.watch.watch import FALSE_ALARM

MIB = 2**20


def serve(
    bundle: options.BundleFolder,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8080,
    backend: options.BackendName = "cpu",
    threads: options.Threads = None,
    digest: options.Digest = None,
    tolerance: options.Tolerance = None,
    log: options.Log = None,
    log_max_bytes: options.LogMaxBytes = None,
    log_keep: options.LogKeep = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Clips that run together.")] = 8,
    max_wait: Annotated[float, typer.Option(min=0, help="Seconds that a clip waits for others.")] = 0.005,
    max_upload: Annotated[int, typer.Option(min=1, help="MiB of one video.")] = 64,
    max_concurrent: Annotated[int, typer.Option(min=1, help="Requests under way; one more gets 503.")] = 16,
    decode_seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds that decoding one video may take.")
    ] = 20.0,
    grace: Annotated[int, typer.Option(min=0, help="Seconds that requests under way get after SIGTERM.")] = 30,
    token_file: Annotated[Path | None, typer.Option(help="File with a token that clients must show.")] = None,
    watch: Wanted = None,
    false_alarm: FalseAlarm = FALSE_ALARM,
    watch_every: Every = 1,
    abstain_below: AbstainBelow = None,
    stream: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SOURCE", help="Serve a file, folder, camera or URL as well.")
    ] = None,
) -> None:
    """Answer clips over HTTP: POST /v1/predict, /metrics, /healthz, /readyz. SIGTERM finishes what is under way."""
    try:
        import uvicorn

        from hardroute.runtime.service.http import create_app
        from hardroute.runtime.service.service import Service
        from hardroute.runtime.service.settings import ServiceSettings, read_token
    except ModuleNotFoundError as error:
        raise HardrouteError(f"serve needs {error.name}: pip install 'hardroute[serve]'") from None
    settings = ServiceSettings(
        max_upload=max_upload * MIB,
        max_concurrent=max_concurrent,
        decode_seconds=decode_seconds,
        max_batch=max_batch,
        max_wait=max_wait,
        token=read_token(token_file) if token_file else None,
    )
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(host, port))
        route_log = stack.enter_context(options.open_log(log, log_max_bytes, log_keep))
        engine = stack.enter_context(options.open_engine(bundle, backend, threads, digest, tolerance))
        service = Service(
            engine,
            settings,
            log=route_log,
            watch=open_watch(engine.bundle, watch, false_alarm, watch_every),
            abstain=open_abstain(abstain_below),
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
        raise HardrouteError(f"--stream {text}: expected NAME=SOURCE, as in door=rtsp://camera/1")
    return name, source


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
