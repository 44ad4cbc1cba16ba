"""A source that is read by a child process: whatever a stranger sent is demuxed and decoded there, see `cage`.

A camera that hangs while it is opened keeps nobody else waiting, and what crashes a decoder ends a child, not the
service.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace

from hardroute.runtime.clips import Limits, cage
from hardroute.runtime.clips.file_type import SourceFile
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams import wire
from hardroute.runtime.streams.cutting import Manner, Step

CHILD = "hardroute.runtime.streams.reader_child"
# The child keeps the time limit itself and tells every second that frames come; this is for one that hangs.
_GRACE = 4.0


class IsolatedTake:
    """Windows of a child; see `WindowTake`.

    Args:
        target: a camera's number, a URL, or the file that is read. timeout: seconds for opening, and for one frame.
    """

    def __init__(
        self, target: int | str | SourceFile, timeout: float, *, redirects: bool = False, module: str = CHILD
    ) -> None:
        file = target if isinstance(target, SourceFile) else None
        self.clip, self.sha256 = (file.path.name, file.sha256) if file else ("", "")
        self._target, self._file, self._timeout, self._redirects = target, file, timeout, redirects
        self._module = module
        self._child: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def steps(self, manner: Manner) -> Iterator[Step]:
        """See `WindowTake`."""
        if self._file:
            manner = replace(manner, name=str(self._file.path))
        task = wire.Task(
            None if isinstance(self._target, SourceFile) else self._target,
            manner,
            self._timeout,
            self._file.demuxer if self._file else "",
            self._redirects,
        )
        with self._started(manner.name, manner.limits) as child:
            # Not among the arguments, which every user of the machine can read: a URL may hold a password.
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(task.to_json() + b"\n")  # type: ignore[union-attr]
                child.stdin.flush()  # type: ignore[union-attr]
            yield from self._received(child, manner)
        if self._file and not self._cancelled:
            self._file.check_unchanged()

    def cancel(self) -> None:
        """See `Take`."""
        self._cancelled = True
        if child := self._child:
            child.kill()

    @contextlib.contextmanager
    def _started(self, name: str, limits: Limits) -> Iterator[subprocess.Popen[bytes]]:
        descriptors = (self._file.file.fileno(),) if self._file else ()
        try:
            child = cage.start(self._module, *descriptors, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:  # out of processes, files or memory, which may pass
            raise ClipError(f"{name}: its reader cannot be started ({error.strerror}); raise that limit") from None
        self._child = child
        with child:  # closes the pipes and waits
            try:
                if self._cancelled:
                    return
                yield child
            finally:
                child.kill()

    def _received(self, child: subprocess.Popen[bytes], manner: Manner) -> Iterator[Step]:
        contract = manner.contract
        size = contract.frames * contract.height * contract.width * 3
        receiver = wire.Receiver(child.stdout.fileno(), size)  # type: ignore[union-attr]
        kind, data = self._receive(receiver, manner.name, cage.START_SECONDS)
        if kind == wire.READY:
            # All that it needs for itself is loaded, and nothing has been opened yet.
            cage.bound_memory(child.pid, manner.limits)
            kind, data = self._receive(receiver, manner.name, self._timeout + _GRACE)
        while kind in (wire.OPENED, wire.STEP):
            if kind == wire.STEP:
                try:
                    step = wire.unpack_step(data, contract)
                except ValueError:
                    raise ClipError(f"{manner.name}: its reader answered out of turn") from None
                yield step
            kind, data = self._receive(receiver, manner.name, self._timeout + _GRACE)
        if kind == wire.ERROR:
            raise ClipError(data.decode("utf-8", errors="replace"))
        if kind != wire.END:
            raise ClipError(f"{manner.name}: its reader answered out of turn")

    def _receive(self, receiver: wire.Receiver, name: str, timeout: float) -> tuple[bytes, bytes]:
        try:
            return receiver.receive(timeout)
        except TimeoutError:
            raise ClipError(f"{name}: no frame for {timeout:g} seconds") from None
        except EOFError:
            raise ClipError(f"{name}: its reader died; the source may send what a decoder cannot bear") from None
