"""The endpoints over a bundle whose answers have a closed form: what is answered, what is refused, what is counted."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from hardroute import Engine, RouteLog, decode
from hardroute.runtime.backends import OnnxRuntime, Session
from hardroute.runtime.bundle import Baseline
from hardroute.runtime.routelog.verify import verify_log
from hardroute.runtime.service.http import create_app
from hardroute.runtime.service.service import Service
from hardroute.runtime.service.settings import ServiceSettings
from hardroute.runtime.watch import Abstain, Watch
from tests.support.bundles import (
    CLASSES,
    CONTRACT,
    TinyBundle,
    certify,
    digest_of,
    make_bundle,
    random_frames,
    write_video,
)
from tests.support.routelogs import make_key
from tests.support.videos import grey_frames, write, write_avi
from tests.support.watched import traffic

PREDICT = "/v1/predict"
TOKEN = "correct-horse-battery-staple"  # noqa: S105 -- of the tests


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_bundle(tmp_path_factory.mktemp("service") / "bundle")


class Hands:
    """onnxruntime that tests can hold back, and make answer nonsense."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.nonsense = False
        self._library = OnnxRuntime("cpu", threads=1)

    def load(self, model: bytes, name: str) -> Session:
        session, hands = self._library.load(model, name), self

        class Held:
            def run(self, clips: np.ndarray) -> np.ndarray:
                assert hands.free.wait(60)
                return session.run(clips) * (np.float32("nan") if hands.nonsense else np.float32(1))

        return Held()


@pytest.fixture(scope="module")
def hands() -> Hands:
    return Hands()


@pytest.fixture(scope="module")
def engine(tiny: TinyBundle, hands: Hands) -> Iterator[Engine]:
    with Engine.load(tiny.root, hands) as engine:
        yield engine


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "cat.mp4")


@contextmanager
def serving(engine: Engine, *, raise_bugs: bool = True, **parts: Any) -> Iterator[TestClient]:
    with TestClient(create_app(Service(engine, **parts)), raise_server_exceptions=raise_bugs) as client:
        yield client


def send(client: TestClient, path: Path, name: str | None = None) -> Any:
    return client.post(PREDICT, files={"file": (name or path.name, path.read_bytes())})


def metric(client: TestClient, name: str, **labels: str) -> float:
    """The sum over the samples that have these labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def refused(response: Any) -> tuple[int, str]:
    """Status and line of a refusal, which must show nothing of the server's inside."""
    assert list(response.json()) == ["error"]
    line = response.json()["error"]
    assert "\n" not in line and "hardroute-" not in line and "Traceback" not in line and ".py" not in line
    return response.status_code, line


def test_an_answer_is_what_the_networks_say_and_lies_in_the_log(
    tiny: TinyBundle, engine: Engine, video: Path, tmp_path: Path
) -> None:
    frames = decode(video, CONTRACT).frames[None]
    logits = tiny.logits(frames)[0]
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    with RouteLog(tmp_path / "routes.jsonl") as log, serving(engine, log=log) as client:
        response = send(client, video)
        # Before anything is flushed or closed.
        (line,) = (tmp_path / "routes.jsonl").read_text().splitlines()
    assert response.status_code == 200
    answer = response.json()
    probabilities = answer.pop("probabilities")
    assert list(probabilities) == list(CLASSES)
    assert list(probabilities.values()) == pytest.approx(expected, abs=1e-5)
    assert answer["label"] == CLASSES[int(logits.argmax())]
    assert answer["expert"] == tiny.routes(frames)[0]
    assert answer["clip"] == "cat.mp4"
    assert answer["bundle_sha256"] == digest_of(tiny.root)
    assert answer["ms"]["decode"] > 0
    # The line's number stands in it; its hash cannot.
    assert answer.pop("head") == hashlib.sha256(f"{line}\n".encode()).hexdigest()
    assert answer.items() <= json.loads(line).items() and answer["seq"] == 1


def test_both_ways_to_send_give_the_same_answer(engine: Engine, video: Path) -> None:
    with serving(engine) as client:
        form = send(client, video).json()
        raw = client.post(PREDICT, content=video.read_bytes(), headers={"content-type": "video/mp4"})
        named = client.post(
            f"{PREDICT}?name=cat.mp4", content=video.read_bytes(), headers={"content-type": "video/mp4"}
        )
    assert raw.json()["clip"] == "upload"
    for other in (raw.json(), named.json()):
        assert other["probabilities"] == pytest.approx(form["probabilities"])
        assert other["clip_sha256"] == form["clip_sha256"]
    assert named.json()["clip"] == "cat.mp4"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, video: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    frames = grey_frames(30)
    (folder / "cut.mp4").write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    (folder / "noise.mp4").write_bytes(b"\0\0\0\x18ftypisom" + np.random.default_rng(0).bytes(5000))
    # A few kilobytes that decode to more than the limits allow.
    write_avi(folder / "bomb.avi", [frames[0]] * 6050)
    write(folder / "huge.avi", np.zeros((2, 4096, 4096, 3), np.uint8))
    write_avi(folder / "short.avi", list(frames[:8]), promised=300)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    "name, says",
    [
        ("cut.mp4", "no video track"),
        ("noise.mp4", "no video track"),
        ("bomb.avi", "605.0 seconds or more"),
        ("huge.avi", "pixels, above the limit"),
        ("short.avi", "only 8 of the 300 frames"),
    ],
)
def test_a_video_that_cannot_be_used_gets_one_line(
    engine: Engine, hostile: dict[str, Path], video: Path, tmp_path: Path, name: str, says: str
) -> None:
    with RouteLog(tmp_path / "routes.jsonl") as log, serving(engine, log=log) as client:
        status, line = refused(send(client, hostile[name], "../../my film.mp4"))
        assert (status, line.startswith("my film.mp4: "), says in line) == (422, True, True), line
        assert send(client, video).status_code == 200, "the next client gets an answer"
    event, answer = map(json.loads, (tmp_path / "routes.jsonl").read_text().splitlines())
    assert (event["event"], event["error"], event["clip"]) == ("clip", line, "my film.mp4")
    assert answer["clip"] == "cat.mp4"


def test_other_refusals_reach_the_client(engine: Engine, video: Path) -> None:
    with serving(engine, settings=ServiceSettings(max_upload=100_000)) as client:
        big = client.post(PREDICT, content=bytes(200_000), headers={"content-type": "video/mp4"})
        assert refused(big)[0] == 413
        assert refused(client.post(PREDICT, files={"file": ("a.mp4", b"")}))[0] == 400
        assert refused(client.post(PREDICT, content=b"hello", headers={"content-type": "video/mp4"}))[0] == 415
        assert refused(client.post(PREDICT))[0] == 415
        assert refused(client.get(PREDICT)) == (405, "method not allowed")
        assert refused(client.get("/v1/nothing")) == (404, "not found")
        counts = {code: metric(client, "hardroute_requests_total", code=code) for code in ("413", "400", "415", "404")}
        assert counts == {"413": 1, "400": 1, "415": 2, "404": 1}
        assert metric(client, "hardroute_requests_total", endpoint="other") == 1


def test_no_more_requests_at_a_time_than_there_are_places(engine: Engine, hands: Hands, video: Path) -> None:
    """Fifty at once, of which as many wait in the networks as there are places; all others are sent away."""
    places = 5
    hands.free.clear()
    service = Service(engine, ServiceSettings(max_concurrent=places))
    app = create_app(service)

    async def fifty() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://t") as client,
        ):
            files = {"file": ("cat.mp4", video.read_bytes())}
            asked = [asyncio.create_task(client.post(PREDICT, files=files)) for _ in range(50)]
            done: set[asyncio.Task[httpx.Response]] = set()
            while len(done) < 50 - places:
                more, _ = await asyncio.wait(set(asked) - done, return_when=asyncio.FIRST_COMPLETED)
                done |= more
            assert {task.result().status_code for task in done} == {503}
            hands.free.set()
            return list(await asyncio.gather(*asked))

    responses = asyncio.run(fifty())
    assert sorted(response.status_code for response in responses) == [200] * places + [503] * (50 - places)
    sent_away = [response for response in responses if response.status_code == 503]
    assert {response.headers["retry-after"] for response in sent_away} == {"1"}
    assert "5 requests are under way" in refused(sent_away[0])[1]


def test_without_its_line_there_is_no_answer(
    engine: Engine, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RouteLog(tmp_path / "routes.jsonl") as log, serving(engine, log=log) as client:
        assert client.get("/readyz").json()["last_log_error"] is None
        with monkeypatch.context() as full:
            full.setattr("os.write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            status, line = refused(send(client, video))
        assert (status, "no answer" in line) == (503, True)
        state = client.get("/readyz")
        assert "No space left on device" in state.json()["last_log_error"]
        assert str(tmp_path) not in state.text
        assert metric(client, "hardroute_clips_total") == 0
        assert send(client, video).status_code == 200, "the disk was cleared"


def test_not_ready_while_the_log_cannot_be_written(engine: Engine, tmp_path: Path, monkeypatch: Any) -> None:
    with RouteLog(tmp_path / "routes.jsonl") as log, serving(engine, log=log) as client:
        assert client.get("/readyz").status_code == 200
        monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
        state = client.get("/readyz")
        assert (state.status_code, state.json()["ready"]) == (503, False)
        assert client.get("/healthz").status_code == 200


def test_a_client_can_hold_the_log_to_its_answers(engine: Engine, video: Path, tmp_path: Path) -> None:
    path = tmp_path / "routes.jsonl"
    key, public = make_key(tmp_path)
    with (
        RouteLog(path, key=key, checkpoint_every=2, origin="example.org/door") as log,
        serving(engine, log=log) as client,
    ):
        assert refused(client.get("/v1/log/checkpoint"))[0] == 404
        answers = [send(client, video).json() for _ in range(3)]
        kept = client.get("/v1/log/checkpoint")
        assert kept.text.startswith("example.org/door\n2\n") and kept.headers["content-type"].startswith("text/plain")
        assert metric(client, "hardroute_log_checkpoints_total") == 1
        assert metric(client, "hardroute_log_checkpoint_seq") == 2
    lines = path.read_bytes().splitlines(keepends=True)
    assert [(answer["seq"], answer["head"]) for answer in answers] == [
        (n, hashlib.sha256(line).hexdigest()) for n, line in enumerate(lines, 1)
    ]
    (tmp_path / "kept").write_text(kept.text)
    assert verify_log([path], keys=[public], checkpoints=[tmp_path / "kept"]).broken == 0
    path.write_bytes(lines[0])
    assert verify_log([path], keys=[public], checkpoints=[tmp_path / "kept"]).broken
    with serving(engine) as client:
        assert client.get("/v1/log/checkpoint").status_code == 404
        assert not {"seq", "head"} & set(send(client, video).json())


def test_an_alarm_is_acknowledged_by_who_has_the_token(engine: Engine, tmp_path: Path) -> None:
    watch = Watch(Baseline.of(traffic(200, 0, (0.4, 0.3, 0.3))), seed=0)
    for window in traffic(300, 1, (1.0, 0.0, 0.0)):
        watch.observe(window)
    standing = {alarm.kind for alarm in watch.alarms}
    assert "collapse" in standing
    ask = "/v1/watch/acknowledge"
    with serving(engine, watch=watch) as client:
        assert refused(client.post(ask, params={"kind": "collapse"}))[0] == 403
    settings = ServiceSettings(token=TOKEN)
    with RouteLog(tmp_path / "log") as log, serving(engine, settings=settings, watch=watch, log=log) as client:
        assert refused(client.post(ask, params={"kind": "collapse"}))[0] == 401
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert refused(client.post(ask))[0] == 400
        assert refused(client.post(ask, params={"kind": "noise"}))[0] == 404
        assert metric(client, "hardroute_watch_alarm_collapse") == 1
        assert client.post(ask, params={"kind": "collapse"}).json()["acknowledged"] == "collapse"
        assert metric(client, "hardroute_watch_alarm_collapse") == 0
        assert metric(client, "hardroute_watch_acknowledged_total") == 1
        assert refused(client.post(ask, params={"kind": "collapse"}))[0] == 409
    (line,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert (line["event"], line["alarms"]) == ("acknowledged", ["collapse"])
    assert {alarm.kind for alarm in watch.alarms} == standing - {"collapse"}
    with serving(engine, settings=settings) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert refused(client.post(ask, params={"kind": "collapse"}))[0] == 404


def test_a_displaced_log_is_told_of(engine: Engine, video: Path, tmp_path: Path) -> None:
    path = tmp_path / "routes.jsonl"
    with RouteLog(path) as log, serving(engine, log=log) as client:
        send(client, video)
        assert client.get("/readyz").json()["log"] == "writable"
        assert metric(client, "hardroute_log_in_place") == 1
        path.unlink()
        state = client.get("/readyz")
        assert (state.status_code, state.json()["log"]) == (200, "was moved, deleted or emptied by another program")
        assert metric(client, "hardroute_log_in_place") == 0
        assert send(client, video).status_code == 200, "it goes on in a new file"
        assert client.get("/readyz").json() == {
            **state.json(),
            "log": "writable",
            "log_displaced": 1,
        }
        assert metric(client, "hardroute_log_displaced_total") == metric(client, "hardroute_log_in_place") == 1
        path.unlink()
        path.write_text("something else\n")
        state = client.get("/readyz")
        assert (state.status_code, state.json()["log"]) == (503, "was replaced by another program")
        assert send(client, video).status_code == 503
        path.unlink()
        assert send(client, video).status_code == 200


def test_a_broken_network_is_said_plainly(engine: Engine, hands: Hands, video: Path, tmp_path: Path) -> None:
    with RouteLog(tmp_path / "routes.jsonl") as log, serving(engine, log=log) as client:
        hands.nonsense = True
        try:
            status, line = refused(send(client, video))
        finally:
            hands.nonsense = False
        assert (status, "not finite" in line) == (500, True)
        assert send(client, video).status_code == 200
    event, _ = map(json.loads, (tmp_path / "routes.jsonl").read_text().splitlines())
    assert (event["event"], event["error"]) == ("error", line)


def test_a_bug_shows_no_traceback(engine: Engine, video: Path, monkeypatch: Any) -> None:
    def bug(*_: object) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("hardroute.runtime.service.service.decode", bug)
    with serving(engine, raise_bugs=False) as client:
        status, line = refused(send(client, video))
        assert (status, "secret" in line) == (500, False)
        assert metric(client, "hardroute_requests_total", code="500") == 1


def test_a_bundle_swapped_on_the_disk_changes_no_answer(video: Path, tmp_path: Path) -> None:
    tiny = make_bundle(tmp_path / "bundle")
    with Engine.load(tiny.root, threads=1) as engine, serving(engine) as client:
        before = send(client, video).json()
        assert client.get("/readyz").json()["bundle_on_disk"] == "same"
        assert metric(client, "hardroute_bundle_differs") == 0
        shutil.rmtree(tiny.root)
        make_bundle(tiny.root, seed=9)
        after = send(client, video).json()
        assert after["probabilities"] == pytest.approx(before["probabilities"])
        assert after["bundle_sha256"] == before["bundle_sha256"] != digest_of(tiny.root)
        state = client.get("/readyz")
        assert (state.status_code, state.json()["bundle_on_disk"]) == (200, "differs from what is served")
        assert metric(client, "hardroute_bundle_differs") == 1


def test_metrics_tell_what_happened(tiny: TinyBundle, engine: Engine, video: Path) -> None:
    expert = str(tiny.routes(decode(video, CONTRACT).frames[None])[0])
    with serving(engine) as client:
        for _ in range(3):
            assert send(client, video).status_code == 200
        assert metric(client, "hardroute_clips_total", expert=expert) == 3
        assert metric(client, "hardroute_router_margin_count") == 3
        for stage in ("upload", "decode", "queue", "route", "expert"):
            assert metric(client, "hardroute_stage_seconds_count", stage=stage) == 3, stage
        assert metric(client, "hardroute_requests_total", endpoint=PREDICT, code="200") == 3
        assert metric(client, "hardroute_in_flight") == 0
        assert metric(client, "hardroute_bundle_info", sha256=digest_of(tiny.root)) == 1


def test_info_says_what_is_served(tiny: TinyBundle, engine: Engine) -> None:
    with serving(engine) as client:
        said = client.get("/v1/info").json()
    assert said["bundle"]["sha256"] == digest_of(tiny.root)
    assert said["classes"] == list(CLASSES)
    assert said["contract"] == json.loads(CONTRACT.model_dump_json())
    assert said["certificate"] is None
    assert str(tiny.root) not in json.dumps(said)


def test_info_quotes_the_certificate(video: Path, tmp_path: Path) -> None:
    tiny = make_bundle(tmp_path / "bundle")
    certify(tiny.root)
    with Engine.load(tiny.root, threads=1) as engine, serving(engine) as client:
        (tiny.root / "certificate.json").unlink()
        said = client.get("/v1/info").json()["certificate"]
    assert said.startswith("policy called 'quick' passed on 64 clips")


def test_a_token_opens_everything_but_the_probes(engine: Engine, video: Path) -> None:
    with serving(engine, settings=ServiceSettings(token=TOKEN)) as client:
        for header in (
            {},
            {"Authorization": TOKEN},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": "Bearer "},
        ):
            for path in ("/v1/info", "/metrics", "/v1/openapi.json", "/v1/nothing"):
                response = client.get(path, headers=header)
                assert (refused(response)[0], response.headers["www-authenticate"]) == (401, "Bearer")
        assert refused(send(client, video))[0] == 401
        assert [client.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert send(client, video).status_code == 200
        assert metric(client, "hardroute_requests_total", code="401") == 17


def test_a_withheld_answer_names_no_label_but_the_log_does(engine: Engine, video: Path, tmp_path: Path) -> None:
    with (
        RouteLog(tmp_path / "routes.jsonl") as log,
        serving(engine, log=log, abstain=Abstain(margin=1.0)) as client,
    ):
        answer = send(client, video).json()
        assert metric(client, "hardroute_abstained_total") == 1
    assert answer["abstained"] is True
    assert (answer["label"], answer["probability"], answer["probabilities"]) == (None, None, None)
    line = json.loads((tmp_path / "routes.jsonl").read_text())
    assert line["abstained"] is True
    assert line["label"] in CLASSES


def test_an_alarm_reaches_log_answer_and_metrics(engine: Engine, video: Path, tmp_path: Path) -> None:
    """Certified on many kinds of clips, sent one and the same: sooner or later the watch must speak up."""
    watch = Watch(Baseline.of(engine.predict_batch(random_frames(64))), false_alarm=0.9, seed=0)
    with RouteLog(tmp_path / "routes.jsonl") as log, serving(engine, log=log, watch=watch) as client:
        assert client.get("/v1/watch").json()["observed_total"] == 0
        sent = 0
        answer: dict[str, Any] = {}
        while "alarms" not in answer and sent < 200:
            sent += 1
            answer = send(client, video).json()
        assert answer["alarms"] == [alarm.kind for alarm in watch.alarms]
        assert client.get("/v1/watch").json()["observed_total"] == sent
        assert metric(client, "hardroute_watch_alarms_total") == len(answer["alarms"])
    assert json.loads((tmp_path / "routes.jsonl").read_text().splitlines()[-1])["alarms"] == answer["alarms"]


def test_without_a_watch_that_is_said(engine: Engine) -> None:
    with serving(engine) as client:
        assert client.get("/v1/watch").json() == {"on": False}


def test_streams_are_served_beside_the_clients(engine: Engine, video: Path, tmp_path: Path) -> None:
    with RouteLog(tmp_path / "routes.jsonl") as log:
        watch = Watch(Baseline.of(engine.predict_batch(random_frames(64))))
        service = Service(engine, log=log, watch=watch, abstain=Abstain(margin=1.0))
        with TestClient(create_app(service)) as client:
            service.hub.add(video, name="door", seconds=0.25)
            assert send(client, video).status_code == 200
            assert service.hub.join(60)
            windows = metric(client, "hardroute_stream_windows_total", stream="door", outcome="answered")
            assert windows == 4
            assert metric(client, "hardroute_stream_frames_total", stream="door") == 12
            assert metric(client, "hardroute_clips_total") == windows + 1
            assert metric(client, "hardroute_abstained_total") == windows + 1
            assert metric(client, "hardroute_watch_observed_total") == windows + 1
    lines = list(map(json.loads, (tmp_path / "routes.jsonl").read_text().splitlines()))
    assert [line["window"]["index"] for line in lines if line.get("stream") == "door"] == [0, 1, 2, 3]
    assert [line["clip"] for line in lines if "stream" not in line] == ["cat.mp4"]
