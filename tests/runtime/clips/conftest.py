"""What tests of decoding share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hardroute.runtime.clips.scan import Reader


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a reader in this process does: a "pass" through the video, a "fit" of a frame."""
    done: list[str] = []
    through, fit = Reader._through, Reader._fit

    def said(word: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            done.append(word)
            return call(*args)

        return counted

    monkeypatch.setattr(Reader, "_through", said("pass", through))
    monkeypatch.setattr(Reader, "_fit", said("fit", fit))
    return done
