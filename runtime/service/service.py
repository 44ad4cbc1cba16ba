"""What the service does, without HTTP: a video that has arrived is decoded, classified, logged, and answered."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hardroute.runtime.clips import DecodedClip, cage, decode
from hardroute.runtime.delivery import Abstain, Delivered, Delivery, Pending
from hardroute.runtime.errors import ClipError, HardrouteError
from hardroute.runtime.inference import Engine, MicroBatcher
from hardroute.runtime.prediction import Prediction
from hardroute.runtime.routelog import RouteLog, with_receipts
from hardroute.runtime.service.metrics import Metrics
from hardroute.runtime.service.refusal import Refusal
from hardroute.runtime.service.settings import DEFAULT_SETTINGS, ServiceSettings
from hardroute.runtime.service.status import Status
from hardroute.runtime.service.uploads import Upload
from hardroute.runtime.streams import Hub, StreamEvent
from hardroute.runtime.watch import KINDS, Watch


class Service:
    """Answers clips of many clients, and streams beside them, with one engine.

    The engine and the log stay the caller's: to be closed after the service.

    Args:
        engine: loaded; what is on the disk later does not matter to it.
        settings: bounds on the requests.
        log: gets a line for each clip before its answer leaves.
        watch: sees each answer.
        abstain: whether to withhold an answer.

    Attributes:
        hub: for sources that are served beside the clients: `service.hub.add("rtsp://door/1", name="door")`. Their
            answers go to log, watch and metrics.
        status: what it tells about itself.
        metrics: what it counts.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ServiceSettings = DEFAULT_SETTINGS,
        *,
        log: RouteLog | None = None,
        watch: Watch | None = None,
        abstain: Abstain | None = None,
    ) -> None:
        self.engine, self.settings, self.log, self.watch = engine, settings, log, watch
        # The places bound the clients' clips, and the hub its own: neither may keep the other out.
        self.batcher = MicroBatcher(engine, settings.max_batch, settings.max_wait, max_pending=None)
        self.hub = Hub(engine, log=log, watch=watch, abstain=abstain, on_event=self._heard, batcher=self.batcher)
        self.status = Status(engine, settings, self.batcher, self.hub, log, watch)
        self.metrics = Metrics(self.status.readings)
        self._delivery = Delivery(engine.bundle.digest, log=log, watch=watch, abstain=abstain)
        self._decoders = ThreadPoolExecutor(settings.decode_threads, "decode")
        cage.default.warm()  # the first client does not wait for it
        self._in_flight = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the `max_concurrent` places.

        Raises:
            Refusal: 503, all are taken.
        """
        if self._in_flight >= self.settings.max_concurrent:
            raise Refusal(503, f"{self._in_flight} requests are under way, as many as are taken; try again")
        self._in_flight += 1
        self.metrics.in_flight.inc()
        try:
            yield
        finally:
            self._in_flight -= 1
            self.metrics.in_flight.dec()

    async def answer(self, upload: Upload) -> dict[str, Any]:
        """The clip's line in the routing log, its `seq` and `head`, and `probabilities`; without label if it abstains.

        Raises:
            Refusal: 422 the video cannot be used; 500 the model gave no answer, or it could not be judged; 503 the log
                took no line.
        """
        self.metrics.stage("upload", upload.seconds)
        try:
            prediction = await self._classify(await self._decode(upload))
        except Exception as error:
            await self._finished(self._delivery.failure(error, clip=upload.name))
            if isinstance(error, ClipError):
                raise Refusal(422, str(error)) from None
            raise
        delivered = await self._finished(self._delivery.answer(prediction))
        if delivered.log_error is not None:
            raise Refusal(503, "the routing log takes no lines, so there is no answer; try again later")
        if delivered.answer is None:
            # What the watch or the rule said is for the log: it may be anybody's code.
            raise Refusal(500, f"{upload.name}: the answer could not be judged, so there is none")
        self.metrics.clip(prediction, delivered.abstained)
        (line,) = with_receipts(delivered.records, delivered.receipts)
        answer: dict[str, Any] = json.loads(line)
        if delivered.abstained:
            return {**answer, "label": None, "probability": None, "probabilities": None}
        probabilities = zip(self.engine.classes, prediction.probabilities.tolist(), strict=True)
        return {**answer, "probabilities": dict(probabilities)}

    async def acknowledge(self, kind: str) -> dict[str, Any]:
        """Lets one of the watch's alarms go, once the log has a line that says so.

        Raises:
            Refusal: 403 nobody shows a token here, so anybody could; 404 there is no watch, or no such kind of alarm;
                409 none of that kind stands; 503 the log took no line.
        """
        if self.settings.token is None:
            raise Refusal(403, "an alarm is acknowledged only where clients must show a token")
        if self.watch is None or kind not in KINDS:
            raise Refusal(404, "there is no watch here" if self.watch is None else f"alarms are {', '.join(KINDS)}")
        if kind not in {alarm.kind for alarm in self.watch.alarms}:
            raise Refusal(409, f"no alarm {kind} stands")
        delivered = await self._finished(self._delivery.event("acknowledged", alarms=(kind,)))
        if delivered.log_error is not None:
            raise Refusal(503, "the routing log takes no lines, so the alarm still stands; try again later")
        alarm = self.watch.acknowledge(kind)
        return {"acknowledged": kind, "text": alarm.text if alarm else None}

    def close(self) -> None:
        """Ends the streams and finishes what is under way."""
        self.hub.close()
        self._decoders.shutdown()
        self.batcher.close()

    def _heard(self, event: StreamEvent) -> None:
        if event.prediction:
            self.metrics.clip(event.prediction, event.abstained)

    async def _decode(self, upload: Upload) -> tuple[DecodedClip, float]:
        def timed() -> tuple[DecodedClip, float]:
            started = time.perf_counter()
            clip = decode(upload.path, self.engine.contract, self.settings.limits)
            return replace(clip, name=upload.name), time.perf_counter() - started

        try:
            clip, seconds = await asyncio.get_running_loop().run_in_executor(self._decoders, timed)
        except ClipError as error:
            # The decoder names the file that it was given; the client knows it by another name.
            raise ClipError(str(error).replace(str(upload.path), upload.name)) from None
        self.metrics.stage("decode", seconds)
        return clip, seconds

    async def _classify(self, decoded: tuple[DecodedClip, float]) -> Prediction:
        clip, seconds = decoded
        started = time.perf_counter()
        try:
            # A client that leaves must not take back what others are batched with.
            prediction = await asyncio.shield(asyncio.wrap_future(self.batcher.submit(clip.frames)))
        except HardrouteError as error:
            raise Refusal(500, f"{clip.name}: the model gave no answer: {error}") from None
        spent = prediction.milliseconds
        self.metrics.stage("queue", time.perf_counter() - started - (spent.route + spent.expert) / 1000)
        timing = replace(spent, decode=seconds * 1000)
        return replace(prediction, clip=clip.name, clip_sha256=clip.sha256, milliseconds=timing)

    async def _finished(self, pending: Pending[Prediction]) -> Delivered[Prediction]:
        started = time.perf_counter()
        delivered = await pending.wait()
        if self.log and delivered.log_error is not None:
            self.status.last_log_error = delivered.log_error.replace(str(self.log.path), self.log.path.name)
        elif self.log:
            self.metrics.stage("log", time.perf_counter() - started)
        return delivered
