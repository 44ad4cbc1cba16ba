"""What the service tells about itself: what it serves, whether it can, and the numbers that others keep for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any, Final

from hardroute.runtime.inference import Engine, MicroBatcher
from hardroute.runtime.routelog import RouteLog
from hardroute.runtime.service.metrics import Reading
from hardroute.runtime.service.settings import ServiceSettings
from hardroute.runtime.streams import Hub
from hardroute.runtime.watch import Watch

# Below this a log line may not fit any more.
MIN_FREE_BYTES: Final = 2**20
# The next line goes into a new file.
_GONE: Final = "was moved, deleted or emptied by another program"


class Status:
    """Looks at the parts of one service; changes none of them.

    Attributes:
        last_log_error: what the log said when it last took no line, in words for a client.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ServiceSettings,
        batcher: MicroBatcher,
        hub: Hub,
        log: RouteLog | None,
        watch: Watch | None,
    ) -> None:
        self._engine, self._settings, self._batcher, self._hub = engine, settings, batcher, hub
        self._log, self._watch = log, watch
        certificate = engine.bundle.certificate()
        # Of the bundle that was loaded, whatever lies on the disk later.
        self._certificate = certificate.headline if certificate else None
        self._standing = engine.bundle.standing
        self.last_log_error: str | None = None

    def info(self) -> dict[str, Any]:
        """Bundle, classes, clip contract, who certified what, and limits."""
        bundle, settings = self._engine.bundle, self._settings
        manifest = bundle.manifest
        return {
            "bundle": {
                "name": manifest.name,
                "sha256": bundle.digest,
                "certificate_sha256": bundle.certificate_digest,
                "precision": manifest.precision,
            },
            "classes": list(manifest.classes),
            "experts": [expert.model_dump(include={"kind", "width"}) for expert in manifest.experts],
            "contract": manifest.contract.model_dump(),
            "certificate": self._certificate,
            "certified": bundle.vouched is not None,
            "certified_by": list(bundle.vouched.signers) if bundle.vouched else [],
            "standing": self._standing,
            "backend": self._engine.backend,
            "limits": {
                "upload_bytes": settings.max_upload,
                "upload_seconds": settings.upload_seconds,
                "video_seconds": settings.video_seconds,
                "decode_seconds": settings.decode_seconds,
                "concurrent_requests": settings.max_concurrent,
            },
        }

    def readiness(self) -> dict[str, Any]:
        """Whether clips can be answered, and what stands in the way."""
        log = "none" if self._log is None else _state(self._log)
        return {
            "ready": log in ("none", "writable", _GONE),
            "log": log,
            "log_displaced": self._log.displaced if self._log else 0,
            "log_lines_lost": self._log.lost if self._log else 0,
            "last_log_error": self.last_log_error,
            "bundle_on_disk": "same" if self._engine.bundle.is_current() else "differs from what is served",
        }

    def watching(self) -> dict[str, bool | float]:
        """The watch's own words; `on` says whether there is one."""
        return {"on": self._watch is not None, **(self._watch.metrics() if self._watch else {})}

    def readings(self) -> Iterator[Reading]:
        """What is not counted by the service but read at a scrape."""
        bundle = self._engine.bundle
        yield Reading("bundle_info", "The bundle served.", 1, {"name": bundle.manifest.name, "sha256": bundle.digest})
        yield Reading("bundle_differs", "1 if another bundle lies on the disk by now.", not bundle.is_current())
        yield Reading("certified", "1 if its certificate was verified under a trust.", bundle.vouched is not None)
        stats = self._batcher.stats
        yield Reading("batcher_pending", "Clips that wait for a network or are in it.", stats.pending)
        for network, clips, runs in (
            ("router", stats.routed, stats.route_batches),
            ("experts", stats.run, stats.expert_batches),
        ):
            yield Reading("batcher_clips_total", "Clips that networks have run on.", clips, {"network": network})
            yield Reading("batcher_runs_total", "Runs of networks.", runs, {"network": network})
        if self._log:
            yield Reading("log_lines_total", "Routing-log lines written.", self._log.written)
            yield Reading("log_lines_lost_total", "Routing-log lines that could not be written.", self._log.lost)
            yield Reading(
                "log_in_place", "0 if another program moved, replaced or emptied it.", self._log.place == "same"
            )
            yield Reading("log_displaced_total", "Times that the log had to go on in a new file.", self._log.displaced)
            yield Reading("log_checkpoints_total", "Signed checkpoints of the routing log.", self._log.signed)
            yield Reading("log_checkpoint_seq", "Last line that a signed checkpoint holds.", self._log.signed_seq)
        for name, value in (self._watch.metrics() if self._watch else {}).items():
            yield Reading(f"watch_{name}", "See docs/watch.md.", value)
        for stream, counts in self._hub.counts.items():
            label = {"stream": stream}
            for outcome in ("answered", "failed", "dropped"):
                labels = {**label, "outcome": outcome}
                yield Reading(
                    "stream_windows_total", "Windows by what became of them.", getattr(counts, outcome), labels
                )
            yield Reading("stream_frames_total", "Frames read.", counts.frames, label)
            yield Reading("stream_reconnects_total", "Live sources that came back.", counts.reconnects, label)


def _state(log: RouteLog) -> str:
    # Asked of the file system, not of the last line's fate: after a full disk was cleared no line may come
    # as long as this says that none is wanted.
    target = log.path if log.path.exists() else log.path.parent
    if not os.access(target, os.W_OK) or shutil.disk_usage(log.path.parent).free < MIN_FREE_BYTES:
        return "cannot be written"
    place = log.place
    if place in ("replaced", "changed"):
        return f"was {place} by another program"
    return _GONE if place == "missing" else "writable"
