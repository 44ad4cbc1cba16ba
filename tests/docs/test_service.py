"""docs/service.md names every endpoint, metric and option that there is, and none that is not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from hardroute import Engine, RouteLog
from hardroute.cli import app as program
from hardroute.runtime.service.http import create_app
from hardroute.runtime.service.service import Service
from tests.support.bundles import make_bundle, write_video
from tests.support.paths import DOCS

TEXT = (DOCS / "service.md").read_text(encoding="utf-8")


def rows(title: str) -> list[str]:
    """The first cells of the table whose first column is called `title`."""
    table = TEXT.split(f"| {title} |")[1].split("\n\n")[0].splitlines()[2:]
    return [row.split("|")[1].strip().strip("`") for row in table]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("docs")
    tiny = make_bundle(folder / "bundle")
    video = write_video(folder / "clip.mp4")
    with Engine.load(tiny.root, threads=1) as engine, RouteLog(folder / "routes.jsonl") as log:
        service = Service(engine, log=log)
        with TestClient(create_app(service)) as client:
            service.hub.add(video, name="door")
            client.post("/v1/predict", files={"file": ("clip.mp4", video.read_bytes())})
            yield client


def test_every_endpoint_is_explained(client: TestClient) -> None:
    routes = [route for route in client.app.routes if isinstance(route, APIRoute)]  # type: ignore[attr-defined]
    known = {f"{method} {route.path}" for route in routes for method in route.methods or ()}
    assert set(rows("endpoint")) == known | {"GET /v1/openapi.json"}
    assert client.get("/v1/openapi.json").json()["paths"].keys() == {route.path for route in routes}


def test_every_metric_is_explained(client: TestClient) -> None:
    explained = {}
    for row in rows("metric"):
        if row == "hardroute_watch_*":  # docs/watch.md has those
            continue
        name, _, labels = row.partition("{")
        explained[name] = set(labels.rstrip("}").split(",")) - {""}
    shown = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        # Of each counter the client library also shows when it was made.
        if not family.name.startswith("hardroute_") or family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert shown == explained


def test_commands_and_options_exist() -> None:
    commands = [
        shlex.split(line)
        for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
        if line.startswith("hardroute serve")
    ]
    shown = CliRunner().invoke(program, ["serve", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    used = {word for words in commands for word in words if word.startswith("--")}
    assert used
    assert [option for option in used | set(re.findall(r"`(--[\w-]+)", TEXT)) if option not in shown] == []
