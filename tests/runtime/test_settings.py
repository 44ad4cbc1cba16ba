"""Settings are refused when they are made: one line that names class, field, bound and value."""

from __future__ import annotations

from typing import Any

import pytest

from hardroute import ServiceSettings, StreamSettings
from hardroute.runtime.errors import HardrouteError, SettingsError
from hardroute.runtime.routelog import LogSettings
from hardroute.runtime.settings import Settings
from hardroute.runtime.streams import Reconnect
from hardroute.runtime.watch import Abstain, WatchSettings


@pytest.mark.parametrize(
    "kind, values, says",
    [
        (ServiceSettings, {"max_upload": -1}, "service: max_upload must be at least 1, got -1"),
        (ServiceSettings, {"decode_seconds": 3601}, "service: decode_seconds must be at most 3600, got 3601"),
        (ServiceSettings, {"upload_seconds": 0}, "service: upload_seconds must be greater than 0, got 0"),
        (ServiceSettings, {"max_wait": float("nan")}, "service: max_wait must be "),
        (ServiceSettings, {"video_seconds": float("inf")}, "service: video_seconds must be "),
        (ServiceSettings, {"decode_threads": 0}, "service: decode_threads must be at least 1, got 0"),
        (ServiceSettings, {"max_uplaod": 1}, "service: max_uplaod is no setting"),
        (StreamSettings, {"depth": 0}, "stream: depth must be at least 1, got 0"),
        (StreamSettings, {"reconnect": {"attempts": -1}}, "reconnect: attempts must be at least 0, got -1"),
        (Reconnect, {"first": 9.0, "longest": 1.0}, "reconnect: longest must be at least the first pause, 9, got 1"),
        (LogSettings, {"keep": 2}, "route log: keep needs max_bytes"),
        (WatchSettings, {"false_alarm": 1.0}, "watch: false_alarm must be less than 1, got 1.0"),
        (Abstain, {"margin": "much\nerror: forged"}, "abstain: margin must be a valid number"),
    ],
)
def test_what_makes_no_sense_is_one_line(kind: type[Settings], values: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        kind(**values)
    assert str(caught.value).startswith(says) and "\n" not in str(caught.value)


def test_a_token_that_is_refused_is_not_shown() -> None:
    for token in ("short-secret", "words with blanks in them", 12345678901234567):
        with pytest.raises(SettingsError, match="service: token must be ") as caught:
            ServiceSettings(token=token)
        assert str(token) not in str(caught.value)
    assert "correct-horse" not in repr(ServiceSettings(token="correct-horse-battery-staple"))  # noqa: S106


def test_changed_settings_are_judged_like_new_ones() -> None:
    settings = StreamSettings(seconds=2.0, loop=True)
    assert settings.changed(stride=1.0) == StreamSettings(seconds=2.0, loop=True, stride=1.0)
    with pytest.raises(SettingsError, match="stream: stride"):
        settings.changed(stride=-1.0)
    with pytest.raises(ValueError, match="frozen"):
        settings.seconds = 3.0  # type: ignore[misc]
    assert issubclass(SettingsError, HardrouteError)
