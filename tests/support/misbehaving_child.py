"""`python -m tests.support.misbehaving_child FD`: the cage's child, but a video's name says what its decoder does."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from pathlib import Path

from hardroute.runtime.clips import cage_child
from hardroute.runtime.clips.frames import ClipFrames
from hardroute.runtime.clips.scan import Reader

read = Reader.read


def misbehave(self: Reader) -> ClipFrames:
    name = Path(self._name).name
    if name.startswith("crash"):
        ctypes.string_at(0)
    elif name.startswith("spin"):
        while True:
            pass
    elif name.startswith("sleep"):
        time.sleep(3600)
    elif name.startswith("allocate"):
        held = []
        while True:
            held.append(bytearray(16 * 2**20))
    elif name.startswith("exit"):
        os._exit(3)
    elif name.startswith("bug"):
        raise IndexError("a bug\nin a library")
    elif name.startswith("write"):
        # Whatever a decoder that was turned would try: each must fail.
        done = []
        for attempt in (
            lambda: open(name, "w"),  # noqa: SIM115
            lambda: open("/etc/hostname"),  # noqa: SIM115
            lambda: socket.socket().connect(("127.0.0.1", 9)),
            lambda: socket.socket(socket.AF_UNIX).connect("/run/x"),
            lambda: os.kill(os.getppid(), 0),
            os.fork,
            lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
            lambda: os.listdir("/"),
        ):
            try:
                attempt()
                done.append("did")
            except PermissionError:
                done.append("refused")
            except OSError as error:
                done.append(type(error).__name__)
        raise IndexError(",".join(done))
    return read(self)


Reader.read = misbehave  # type: ignore[method-assign]

if __name__ == "__main__":
    cage_child.main()
