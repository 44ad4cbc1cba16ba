"""`python -m hardroute.runtime.clips.cage_child FD`: decodes one video after the other for its parent, see `cage`.

It ends with its parent, and with whatever a hostile video does to it.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import sys
import traceback

import av
import av.audio.codeccontext
import av.audio.stream
import av.sidedata.encparams
import av.sidedata.motionvectors
import av.subtitles.codeccontext
import av.subtitles.stream
import av.video.codeccontext
import av.video.stream
import cv2
import numpy as np

from hardroute.runtime.clips import sandbox
from hardroute.runtime.clips.cage import Task
from hardroute.runtime.clips.contract import ClipContract
from hardroute.runtime.clips.pixels import Pixels
from hardroute.runtime.clips.preprocess import fit_frame
from hardroute.runtime.clips.scan import Reader
from hardroute.runtime.errors import ClipError

_MOST_TEXT = 1 << 17


def main() -> None:
    """Takes a `cage.Task` and the descriptors of a file and of shared memory with each message."""
    # The parent decides when this ends; Ctrl-C in its terminal would reach here first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = socket.socket(fileno=int(sys.argv[1]))
    warm_up()
    parent.send(json.dumps({"force": sandbox.confine()}).encode())
    while True:
        text, descriptors, _, _ = socket.recv_fds(parent, _MOST_TEXT, 2)
        if not text:
            return
        parent.send(json.dumps(_answer(Task.from_json(text), *descriptors)).encode())


def warm_up() -> None:
    """Loads what is loaded at first use (PyAV's kinds of tracks are imported above), before nothing can be opened."""
    cv2.setNumThreads(1)
    fit_frame(Pixels("").rgb(av.VideoFrame(64, 64, "yuv420p")), ClipContract(), aspect=1.5)


def _answer(task: Task, video: int, shared: int) -> dict[str, object]:
    try:
        with open(video, "rb") as file:
            reader = Reader(file, task.name, task.demuxer, task.contract, task.limits, task.spread, task.allow_short)
            read = reader.read()
        with mmap.mmap(shared, read.frames.nbytes) as memory:
            # Whole, into a copy of its own there: nothing of this array outlives the map.
            memory[:] = np.ascontiguousarray(read.frames).tobytes()
        return {"starts": read.starts, "duration": read.duration, "decoded": read.decoded, "expected": read.expected}
    except ClipError as error:
        return {"error": str(error)[: _MOST_TEXT // 8]}
    except MemoryError:
        return {"error": f"{task.name}: decoding it takes more memory than is allowed; scale it down"}
    except Exception as error:  # a library's; the next video has nothing to do with it
        trace = traceback.format_exc()[-_MOST_TEXT // 8 :]
        what = f"{type(error).__name__}: {error}"[:1000]
        return {"error": f"{task.name}: its decoder failed ({what}); re-encode the original", "trace": trace}
    finally:
        os.close(shared)


if __name__ == "__main__":
    main()
