"""`python -m runtime` as its users see it: exit codes, one-line errors, and nothing written on bad input."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.support.bundles import CLASSES, TinyBundle, edit_manifest, make_bundle, write_video
from tests.support.paths import ROOT


def run(
    *arguments: str | Path, cwd: Path = ROOT, stdout: int | IO[str] = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "hardroute", *map(str, arguments)]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, cwd=cwd, env=environment, timeout=120
    )


def records_in(log: Path) -> list[dict[str, object]]:
    """The lines of a log as clients get them: with a line's own hash in place of that of the line before."""
    return [
        {"head": hashlib.sha256(line).hexdigest()} | {k: v for k, v in json.loads(line).items() if k != "prev"}
        for line in log.read_bytes().splitlines(keepends=True)
    ]


def assert_one_error_line(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    for text in says:
        assert text in done.stderr


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_bundle(tmp_path_factory.mktemp("cli") / "bundle")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / f"clip_{n}.mp4", seed=n) for n in range(3)]


def test_predict_answers_every_video_and_logs_it(tiny: TinyBundle, videos: list[Path], tmp_path: Path) -> None:
    log = tmp_path / "routes.jsonl"
    done = run("predict", tiny.root, *videos, "--log", log)
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = done.stdout.splitlines()
    assert header.split()[:5] == ["clip", "label", "probability", "expert", "margin"]
    assert [row.split()[0] for row in rows] == [video.name for video in videos]
    assert {row.split()[1] for row in rows} <= set(CLASSES)
    assert len({len(line) for line in (header, *rows)}) == 1, "columns are aligned"
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [record["clip_sha256"] for record in records] == [
        hashlib.sha256(video.read_bytes()).hexdigest() for video in videos
    ]
    assert [record["label"] for record in records] == [row.split()[1] for row in rows]


def test_json_prints_the_log_lines(tiny: TinyBundle, videos: list[Path], tmp_path: Path) -> None:
    done = run("predict", tiny.root, videos[0], "--json", "--log", tmp_path / "log")
    assert done.returncode == 0
    assert records_in(tmp_path / "log") == [json.loads(done.stdout)]
    assert json.loads(done.stdout)["clip"] == videos[0].name


def test_a_bad_video_among_good_ones_costs_its_line_and_the_exit_code(
    tiny: TinyBundle, videos: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("this is no video")
    log = tmp_path / "log"
    done = run("predict", tiny.root, videos[0], bad, videos[1], "--json", "--log", log)
    assert_one_error_line(done, "bad.mp4")
    answered = [json.loads(line)["clip"] for line in done.stdout.splitlines()]
    assert answered == [videos[0].name, videos[1].name]
    first, failed, second = records_in(log)
    assert [first, second] == [json.loads(line) for line in done.stdout.splitlines()]
    assert (failed["event"], failed["clip"]) == ("clip", "bad.mp4") and f"error: {failed['error']}\n" == done.stderr


@pytest.mark.parametrize("content", [None, b"", b"text\n", b"\x00" * 5000])
def test_a_video_that_cannot_be_used_has_its_line_and_nothing_else_is_written(
    tiny: TinyBundle, tmp_path: Path, content: bytes | None
) -> None:
    bad = tmp_path / "bad.mp4"
    if content is not None:
        bad.write_bytes(content)
    before = os.listdir(tmp_path)
    done = run("predict", tiny.root, bad, "--log", tmp_path / "log", cwd=tmp_path)
    assert_one_error_line(done, "bad.mp4")
    assert done.stdout == ""
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "log"])
    assert [line["event"] for line in records_in(tmp_path / "log")] == ["clip"]


def test_bad_bundles_and_backends_are_refused(tmp_path: Path, videos: list[Path]) -> None:
    root = make_bundle(tmp_path / "bundle").root
    predict = ("predict", root, videos[0], "--log", tmp_path / "log")
    assert_one_error_line(run("predict", tmp_path / "absent", videos[0]), "no such bundle folder")
    assert_one_error_line(run(*predict, "--backend", "tpu"), "unknown backend 'tpu'", "cpu, cuda, tensorrt")
    edit_manifest(root, router="../router.onnx")
    assert_one_error_line(run(*predict), "not a plain file name")
    edit_manifest(root, router="/router.onnx")
    assert_one_error_line(run(*predict), "not a plain file name")
    edit_manifest(root, router="router.onnx")
    data = bytearray((root / "expert_2.onnx").read_bytes())
    data[100] ^= 4
    (root / "expert_2.onnx").write_bytes(data)
    assert_one_error_line(run(*predict), "expert_2.onnx was changed")
    assert_one_error_line(run("info", root), "expert_2.onnx was changed")
    assert os.listdir(tmp_path) == ["bundle"]


def test_cuda_without_cuda_is_an_error(tiny: TinyBundle, videos: list[Path], tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the GPU providers")
    done = run("predict", tiny.root, videos[0], "--backend", "cuda", "--log", tmp_path / "log")
    assert_one_error_line(done, "onnxruntime-gpu", "CUDA 13")
    assert os.listdir(tmp_path) == []


def test_a_log_that_cannot_be_written_stops_before_any_answer(tiny: TinyBundle, videos: list[Path]) -> None:
    done = run("predict", tiny.root, videos[0], "--log", "/no/such/folder/log")
    assert_one_error_line(done, "no such folder")
    assert done.stdout == ""


def test_the_log_options_of_every_command(tiny: TinyBundle, videos: list[Path], tmp_path: Path) -> None:
    log = tmp_path / "routes.jsonl"
    assert run("predict", tiny.root, *videos, "--log", log, "--log-max-bytes", "1", "--log-keep", "1").returncode == 0
    assert len(list(tmp_path.iterdir())) == 2
    assert_one_error_line(run("predict", tiny.root, *videos, "--log-max-bytes", "1"), "name its file with --log")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_the_output_is_one_line(tiny: TinyBundle, videos: list[Path]) -> None:
    with open("/dev/full", "w", encoding="ascii") as full:
        assert_one_error_line(run("predict", tiny.root, *videos, stdout=full), "No space left on device")


def test_a_cut_off_video_needs_allow_short(tiny: TinyBundle, videos: list[Path], tmp_path: Path) -> None:
    # An .avi has its index at the end, so what is left of it can still be read.
    import cv2
    import numpy as np

    whole, cut = tmp_path / "whole.avi", tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 12, (64, 64))
    for n in range(40):
        writer.write(np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8))
    writer.release()
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert_one_error_line(run("predict", tiny.root, cut), "cut.avi")
    assert run("predict", tiny.root, cut, "--allow-short").returncode == 0


def test_info_says_what_is_in_the_bundle(tiny: TinyBundle) -> None:
    done = run("info", tiny.root)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3: left, right, up" in done.stdout
    assert "4 frames of 8x8 from the whole video, letterbox" in done.stdout
    assert hashlib.sha256((tiny.root / "manifest.json").read_bytes()).hexdigest() in done.stdout
    assert "5, 0.0 MB, all digests match" in done.stdout


def test_render_writes_a_set_and_refuses_an_unknown_one(tmp_path: Path) -> None:
    out = tmp_path / "set"
    done = run("render", "motion:train=0,val=0,test=1", "--out", out)
    assert done.returncode == 0, done.stderr
    assert (out / "manifest.csv").is_file()
    assert_one_error_line(run("render", "motoin", "--out", tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_wrong_usage_is_exit_2_without_a_traceback(tiny: TinyBundle) -> None:
    for arguments in (["predict", tiny.root], ["predict"], ["predikt"], ["info", tiny.root, "--what"]):
        done = run(*arguments)
        assert done.returncode == 2 and "Traceback" not in done.stderr
