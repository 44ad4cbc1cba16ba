"""Streams: files, folders, cameras and network addresses, cut into windows that share one engine.

>>> for event in Stream(engine, "rtsp://door/1", seconds=2, stride=1):  # doctest: +SKIP
...     print(event.start, event.prediction.label if event.prediction else event.error)
"""

from hardroute.runtime.streams.address import showable, spelled_out
from hardroute.runtime.streams.events import StreamCounts, StreamEvent
from hardroute.runtime.streams.hub import Hub
from hardroute.runtime.streams.open_video import FrameSource, Take
from hardroute.runtime.streams.settings import Policy, Reconnect, StreamSettings
from hardroute.runtime.streams.source import Source
from hardroute.runtime.streams.stream import Stream

__all__ = [
    "FrameSource",
    "Hub",
    "Policy",
    "Reconnect",
    "Source",
    "Stream",
    "StreamCounts",
    "StreamEvent",
    "StreamSettings",
    "Take",
    "showable",
    "spelled_out",
]
