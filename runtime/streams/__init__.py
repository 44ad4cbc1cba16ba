"""Streams: files, folders, cameras and network addresses, cut into windows that share one engine.

>>> for event in engine.stream("rtsp://door/1", seconds=2, stride=1):  # doctest: +SKIP
...     print(event.start, event.prediction.label if event.prediction else event.error)
"""

from runtime.streams.events import StreamCounts, StreamEvent
from runtime.streams.hub import Hub
from runtime.streams.settings import Policy, Reconnect, StreamSettings
from runtime.streams.source import FrameSource, Source
from runtime.streams.stream import Stream
from runtime.streams.takes import Take

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
]
