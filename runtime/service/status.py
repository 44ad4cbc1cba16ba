"""What the service tells about itself: what it serves, whether it can, and the numbers that others keep for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from hardroute.runtime.routelog import RouteLog
from hardroute.runtime.service.metrics import Reading

if TYPE_CHECKING:
    from hardroute.runtime.service.service import Service

# Below this a log line may not fit any more.
MIN_FREE_BYTES: Final = 2**20


def info(service: Service) -> dict[str, Any]:
    """Bundle, classes, clip contract, certificate and limits."""
    bundle, settings = service.engine.bundle, service.settings
    manifest = bundle.manifest
    return {
        "bundle": {"name": manifest.name, "sha256": bundle.digest, "precision": manifest.precision},
        "classes": list(manifest.classes),
        "experts": [expert.model_dump(include={"kind", "width"}) for expert in manifest.experts],
        "contract": manifest.contract.model_dump(),
        "certificate": service.certificate,
        "backend": service.engine.backend,
        "limits": {
            "upload_bytes": settings.max_upload,
            "upload_seconds": settings.upload_seconds,
            "video_seconds": settings.video_seconds,
            "decode_seconds": settings.decode_seconds,
            "concurrent_requests": settings.max_concurrent,
        },
    }


def readiness(service: Service) -> dict[str, Any]:
    """Whether clips can be answered, and what stands in the way."""
    writable = service.log is None or _writable(service.log)
    return {
        "ready": writable,
        "log": "none" if service.log is None else "writable" if writable else "cannot be written",
        "log_lines_lost": service.log.lost if service.log else 0,
        "last_log_error": service.last_log_error,
        "bundle_on_disk": "same" if service.engine.bundle.is_current() else "differs from what is served",
    }


def watching(service: Service) -> dict[str, Any]:
    """The watch's own words; `on` says whether there is one."""
    return {"on": service.watch is not None, **(service.watch.metrics() if service.watch else {})}


def readings(service: Service) -> Iterator[Reading]:
    """What is not counted here but read at a scrape."""
    bundle = service.engine.bundle
    yield Reading("bundle_info", "The bundle served.", 1, {"name": bundle.manifest.name, "sha256": bundle.digest})
    yield Reading("bundle_differs", "1 if another bundle lies on the disk by now.", not bundle.is_current())
    stats = service.batcher.stats
    yield Reading("batcher_pending", "Clips that wait for a network or are in it.", stats.pending)
    for network, clips, runs in (
        ("router", stats.routed, stats.route_batches),
        ("experts", stats.run, stats.expert_batches),
    ):
        yield Reading("batcher_clips_total", "Clips that networks have run on.", clips, {"network": network})
        yield Reading("batcher_runs_total", "Runs of networks.", runs, {"network": network})
    if service.log:
        yield Reading("log_lines_total", "Routing-log lines written.", service.log.written)
        yield Reading("log_lines_lost_total", "Routing-log lines that could not be written.", service.log.lost)
    for name, value in (service.watch.metrics() if service.watch else {}).items():
        yield Reading(f"watch_{name}", "See docs/watch.md.", value)
    for stream, counts in service.hub.counts.items():
        label = {"stream": stream}
        for outcome in ("answered", "failed", "dropped"):
            labels = {**label, "outcome": outcome}
            yield Reading("stream_windows_total", "Windows by what became of them.", getattr(counts, outcome), labels)
        yield Reading("stream_frames_total", "Frames read.", counts.frames, label)
        yield Reading("stream_reconnects_total", "Live sources that came back.", counts.reconnects, label)


def _writable(log: RouteLog) -> bool:
    # Asked of the file system, not of the last line's fate: after a full disk was cleared no line may come
    # as long as this says that none is wanted.
    target = log.path if log.path.exists() else log.path.parent
    return os.access(target, os.W_OK) and shutil.disk_usage(log.path.parent).free >= MIN_FREE_BYTES
