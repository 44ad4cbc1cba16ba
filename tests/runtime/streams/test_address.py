"""Addresses: no secret of one is shown, valid or mistyped; where else they may stand; and names of sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardroute import ClipContract, HardrouteError
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams.address import SCHEMES, check_url, showable, spelled_out
from hardroute.runtime.streams.settings import StreamSettings
from hardroute.runtime.streams.source import open_source
from tests.support.videos import grey_frames, write

CONTRACT = ClipContract(frames=4, height=8, width=8)
SECRET = "hunter2"  # noqa: S105
ODD = ("", "/", "#", "?", "@", ":", "%40", "%", "&", "=", ";", "\\", " ", "[", "]", "//", "/?#@:")


def odd_addresses() -> list[str]:
    valid = [f"rtsp://user:{SECRET}{odd}{SECRET}@door:554/live" for odd in ODD]
    paths = [
        f"rtsp://door/user={SECRET}&password={SECRET}&channel=1",
        f"rtsp://door/user={SECRET}_password={SECRET}/{SECRET}_channel=1.sdp",
        f"http://door/cgi?user={SECRET}&pwd={SECRET}",
        f"http://door/stream;token={SECRET};x",
        f"https://door/a#key={SECRET}",
        f"http://door/API_KEY={SECRET}/{SECRET}",
        f"rtsp://{SECRET}@door/1",
    ]
    mistyped = [
        f"rtsp:/user:{SECRET}@door/1",
        f"rtsp//user:{SECRET}@door/1",
        f"rtps://user:{SECRET}/{SECRET}@door/1",
        f"rtsp:user:{SECRET}@door/1",
        f"user:{SECRET}@door:554/1",
        f"rtsp:// user:{SECRET}@door/1",
        f"rtsp://user:{SECRET}%40door/1",
        f"rtsp://user:{SECRET}/1",
        f"htp://user:{SECRET}#@door",
        f"rtsp://door:{SECRET}/1",
        f"RTSP:///user:{SECRET}@door/1",
        f" rtsp://user:{SECRET}@door/1",
    ]
    return valid + paths + mistyped


def test_there_are_thirty_and_more() -> None:
    assert len(odd_addresses()) >= 30


@pytest.mark.parametrize("address", odd_addresses())
def test_no_secret_in_a_name_or_an_error(address: str) -> None:
    assert SECRET not in showable(address)
    try:
        said = open_source(address, StreamSettings(), CONTRACT).name
    except HardrouteError as error:
        said = str(error)
    assert SECRET not in said


@given(
    st.sampled_from(SCHEMES),
    st.text(min_size=4, max_size=12).filter(lambda text: text.strip()),
    st.sampled_from(["door", "door:554", "[::1]:554"]),
)
def test_whatever_the_password(scheme: str, password: str, host: str) -> None:
    assert showable(f"{scheme}://user:{password}@{host}/live") == f"{scheme}://{host}/live"


def test_what_is_no_secret_stays() -> None:
    for address in ("rtsp://door:554/one/two", "http://127.0.0.1:8080/a.avi", "https://[::1]:8/x", "rtsp://door"):
        assert showable(address) == address
    assert showable("http://door/live?x=1#y") == "http://door/live"


def test_a_url_that_is_one_is_kept_whole() -> None:
    assert check_url("rtsp://u:p@door/x?y=1") == "rtsp://u:p@door/x?y=1"


def test_sources_may_stand_in_a_file_or_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "doors"
    path.write_text("# two doors\nrtsp://u:p@a/1\n\n  rtsp://b/2  \n")
    monkeypatch.setenv("DOORS", "rtsp://u:p@c/3\ncamera:0")
    assert spelled_out(f"@{path}") == ["rtsp://u:p@a/1", "rtsp://b/2"]
    assert spelled_out("env:DOORS") == ["rtsp://u:p@c/3", "camera:0"]
    assert spelled_out("clip.mp4") == ["clip.mp4"]
    for wrong, says in ((f"@{tmp_path / 'no'}", "cannot be read"), ("env:NO_SUCH", "no source in it")):
        with pytest.raises(ClipError, match=says):
            spelled_out(wrong)


@pytest.mark.parametrize("address", odd_addresses()[:4])
def test_a_refused_address_leaves_nothing_on_the_screen(address: str) -> None:
    code = (
        "import sys, logging; logging.basicConfig(level=0)\n"
        "from hardroute import ClipContract, HardrouteError\n"
        "from hardroute.runtime.streams.cutting import Manner\n"
        "from hardroute.runtime.streams.source import open_source\n"
        "from hardroute.runtime.streams.settings import StreamSettings\n"
        "from hardroute.runtime.clips import Limits\n"
        "c = ClipContract(frames=4, height=8, width=8)\n"
        "s = open_source(sys.stdin.read().replace('door:554', '127.0.0.1:9'), StreamSettings(timeout=1.0), c)\n"
        "with next(s.takes()) as take:\n"
        "    try: list(take.steps(Manner(s.name, c, Limits(), 1.0, 1.0, True)))\n"
        "    except HardrouteError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=address, capture_output=True, text=True)
    assert SECRET not in done.stdout + done.stderr


def test_folders_within_folders_and_what_a_name_hides(tmp_path: Path) -> None:
    for name in ("b.MTS", "a/1.mp4", "a/b/2.webm", "._b.mp4", ".hidden/3.mp4", "a/._1.mp4", "notes.txt"):
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    source = open_source(tmp_path, StreamSettings(), CONTRACT)
    assert [str(path.relative_to(tmp_path)) for path in source._files] == ["a/1.mp4", "a/b/2.webm", "b.MTS"]  # type: ignore[attr-defined]


def test_a_file_by_its_address(tmp_path: Path) -> None:
    path = write(tmp_path / "a b@c.avi", grey_frames(5))
    for address in (path.as_uri(), f"file://localhost{path}".replace(" ", "%20"), str(path)):
        source = open_source(address, StreamSettings(), CONTRACT)
        assert source._files == [path]  # type: ignore[attr-defined]
        assert source.name in (str(path), address)
