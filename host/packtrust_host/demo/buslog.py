"""A bus as its log shows it: frames, and the transfers they make up.

The log is candump's (`candump -L`), one line a good frame, stamped with the bus time of its end. What is put together
here follows docs/wire.md, section 2, in code of its own: it judges the nodes, so it shares nothing with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from packtrust.arbitration import ENCRYPTED, TOGGLE, base_of, clear_of
from packtrust.policy import DEFAULT_POLICY, HANDSHAKE, TEST, TRANSPORT

# A record of 128 bytes has 16 frames; on a full bus its frames come a few hundred milliseconds apart at worst.
STALE_US = 1_000_000

RECORD = "record"
SHAKE = "handshake"
ISOTP = "isotp"

_LINE = re.compile(r"\((\d+)\.(\d{6})\) (\S+) ([0-9A-Fa-f]{3}|[0-9A-Fa-f]{8})#(#[0-9A-Fa-f])?([0-9A-Fa-f]*)$")
_REMOTE = re.compile(r"\(\d+\.\d{6}\) \S+ [0-9A-Fa-f]+#R\d*$")


class LogError(ValueError):
    """A line is no candump line; the text names it."""


@dataclass(frozen=True, slots=True)
class LogFrame:
    """A frame: Unix time of its end in microseconds, ID, data, whether it is a CAN FD frame."""

    time_us: int
    identifier: int
    extended: bool
    data: bytes
    fd: bool = False


@dataclass(frozen=True, slots=True)
class Transfer:
    """A payload put together from one or more frames, from the end of its first to the end of its last.

    kind         RECORD, SHAKE or ISOTP
    identifier   of the stream: the frames' ID with bits 16..8 zero
    whole        False for the beginning of an ISO-TP transfer that broke off
    """

    kind: str
    identifier: int
    start_us: int
    end_us: int
    payload: bytes
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Fragment:
    """Frames that never became a payload: the first one's ID and time, and what was wrong."""

    identifier: int
    start_us: int
    problem: str


@dataclass
class BusLog:
    """Everything on one bus, in order."""

    name: str
    frames: list[LogFrame]
    transfers: list[Transfer] = field(default_factory=list)
    fragments: list[Fragment] = field(default_factory=list)

    def of_base(self, base: int) -> list[Transfer]:
        """Sealed records of one message."""
        return [item for item in self.transfers if item.kind == RECORD and base_of(item.identifier) == base]


def parse_line(line: str) -> LogFrame | None:
    """The frame of a line, None for a remote frame. Raises LogError."""
    match = _LINE.match(line)
    if match is None:
        if _REMOTE.match(line):
            return None
        raise LogError("not a candump line: %.60r" % line)
    seconds, micros, _, identifier, flags, data = match.groups()
    if len(data) % 2:
        raise LogError("half a byte in %.60r" % line)
    return LogFrame(
        int(seconds) * 1_000_000 + int(micros),
        int(identifier, 16),
        len(identifier) == 8,
        bytes.fromhex(data),
        flags is not None,
    )


def parse(lines: Iterable[str]) -> Iterator[LogFrame]:
    """The frames of a log. A last line without its end is left out: it is still being written. Raises LogError."""
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            return
        if not line.strip():
            continue
        try:
            frame = parse_line(line.rstrip("\n"))
        except LogError as error:
            raise LogError("line %d: %s" % (number, error)) from None
        if frame is not None:
            yield frame


def read(path: Path, name: str) -> BusLog:
    """A bus from its log file. Raises LogError, OSError."""
    with path.open(encoding="ascii", newline="\n") as file:
        return assemble(name, list(parse(file)))


class _Segmented:
    """One stream of chunked payloads (docs/wire.md, section 2)."""

    def __init__(self, log: BusLog, kind: str, stream: int) -> None:
        self._log = log
        self._kind = kind
        self._stream = stream
        self._chunks: list[bytes] = []
        self._head = -1
        self._fd: LogFrame | None = None
        self._start_us = 0
        self._last_us = 0

    def abandon(self, problem: str) -> None:
        """Give up what was begun."""
        if self._chunks:
            self._log.fragments.append(Fragment(self._stream, self._start_us, problem))
            self._chunks = []

    def feed(self, frame: LogFrame) -> None:
        """Take a frame."""
        if frame.fd:
            self._feed_fd(frame)
            return
        chunk, last = frame.identifier >> 12 & 15, frame.identifier >> 8 & 15
        toggle = frame.identifier & TOGGLE
        if frame.identifier == self._head and self._chunks and self._chunks[-1] == frame.data:
            return  # sent twice: an error in the last bit of the frame, as its sender saw it
        if chunk == 0:
            self.abandon("a new payload began before its end")
            self._start_us = frame.time_us
        elif (
            not self._chunks
            or chunk != len(self._chunks)
            or (self._head ^ frame.identifier) & (TOGGLE | 0xF00)
            or frame.time_us - self._last_us > STALE_US
        ):
            self.abandon("chunk %d of another payload came" % chunk)
            self._log.fragments.append(Fragment(self._stream, frame.time_us, "chunk %d came alone" % chunk))
            return
        if not frame.data or (chunk < last and len(frame.data) != 8) or chunk > last:
            self.abandon("a chunk of %d bytes" % len(frame.data))
            self._log.fragments.append(Fragment(self._stream, frame.time_us, "a chunk that cannot be"))
            return
        self._chunks.append(frame.data)
        self._head = frame.identifier
        self._last_us = frame.time_us
        assert toggle in (0, TOGGLE)
        if chunk == last:
            payload = b"".join(self._chunks)
            self._log.transfers.append(Transfer(self._kind, self._stream, self._start_us, frame.time_us, payload))
            self._chunks = []

    def _feed_fd(self, frame: LogFrame) -> None:
        """A whole payload in one CAN FD frame, its true length in the ID."""
        if frame == replace(self._fd, time_us=frame.time_us) if self._fd is not None else False:
            return  # sent twice, as above
        self._fd = frame
        self.abandon("a CAN FD frame began before its end")
        size = frame.identifier >> 8 & 0xFF
        if not 1 <= size <= len(frame.data) or any(frame.data[size:]):
            self._log.fragments.append(Fragment(self._stream, frame.time_us, "a CAN FD frame of another length"))
            return
        payload = frame.data[:size]
        self._log.transfers.append(Transfer(self._kind, self._stream, frame.time_us, frame.time_us, payload))


class _IsoTp:
    """One direction of an ISO-TP link (ISO 15765-2:2016, 9.6)."""

    def __init__(self, log: BusLog, identifier: int) -> None:
        self._log = log
        self._id = identifier
        self._data = bytearray()
        self._size = 0
        self._sequence = 0
        self._start_us = 0

    def abandon(self, problem: str) -> None:
        """Give up what was begun; what came of it is kept, for the search."""
        if self._size:
            self._log.fragments.append(Fragment(self._id, self._start_us, problem))
            self._done(self._start_us)

    def _done(self, time_us: int) -> None:
        payload = bytes(self._data[: self._size])
        whole = len(payload) == self._size
        self._log.transfers.append(Transfer(ISOTP, self._id, self._start_us, time_us, payload, whole))
        self._size = 0
        self._data = bytearray()

    def feed(self, frame: LogFrame) -> None:
        """Take a frame; flow control is passed over."""
        data = frame.data
        if not data:
            return
        kind = data[0] >> 4
        start, size = 1, data[0] & 15
        if size == 0 and frame.fd and len(data) > 8:
            start, size = 2, data[1]  # the escape of CAN FD (ISO 15765-2, 9.6.2)
        if kind == 0 and 1 <= size <= len(data) - start:
            self.abandon("a single frame came before its end")
            self._start_us = frame.time_us
            self._size = size
            self._data += data[start:]
            self._done(frame.time_us)
        elif kind == 1 and len(data) >= 8:
            self.abandon("a new transfer began before its end")
            self._start_us = frame.time_us
            self._size = (data[0] & 15) << 8 | data[1]
            self._data += data[2:]
            self._sequence = 1
        elif kind == 2 and self._size:
            if data[0] & 15 != self._sequence:
                self.abandon("a consecutive frame is missing")
                return
            self._sequence = (self._sequence + 1) & 15
            self._data += data[1:]
            if len(self._data) >= self._size:
                self._done(frame.time_us)


def _kind_of(frame: LogFrame) -> str:
    """How the frame is part of a transfer; "" if it is a message by itself."""
    if not frame.extended:
        return ""
    base = base_of(frame.identifier)
    message_class = DEFAULT_POLICY.class_of(base)
    if message_class in (TRANSPORT, TEST):
        return ISOTP
    if message_class == HANDSHAKE:
        return "" if frame.identifier & ENCRYPTED else SHAKE
    return RECORD if frame.identifier & ENCRYPTED and DEFAULT_POLICY.is_sealable(base) else ""


def assemble(name: str, frames: list[LogFrame]) -> BusLog:
    """Put the transfers of a bus together. What the log's end cuts off is a fragment like any other."""
    log = BusLog(name, frames)
    streams: dict[int, _Segmented | _IsoTp] = {}
    for frame in frames:
        kind = _kind_of(frame)
        if not kind:
            continue
        stream = frame.identifier if kind == ISOTP else clear_of(frame.identifier) | frame.identifier & ENCRYPTED
        found = streams.get(stream)
        if found is None:
            found = _IsoTp(log, stream) if kind == ISOTP else _Segmented(log, kind, stream)
            streams[stream] = found
        found.feed(frame)
    for item in streams.values():
        item.abandon("the log ended before it")
    return log
