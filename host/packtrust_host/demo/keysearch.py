"""Were keys on the bus? Every 8-byte window of every key, in raw bytes, hex and base64, in everything that was on it.

Where is looked: the data of each frame; each transfer put together (records, handshakes, ISO-TP); and the data of all
frames of an ID one after the other, whole and without their first byte, so that a key cut up in a way nobody thought of
is still found. The same search runs over a copy of the log in which keys were hidden on purpose: if it misses one, its
silence proves nothing.
"""

from __future__ import annotations

import base64
import random
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from packtrust.arbitration import TOGGLE

from .buslog import BusLog, LogFrame, Transfer, assemble

WINDOW = 8
FORMS = ("raw", "hex", "base64")
# Fewer different bytes than that are zeros and counters, not a key: one window of random bytes in 10^10 is so.
_LEAST_DISTINCT = 4
_SHOWN = 50


@dataclass(frozen=True)
class Key:
    """A key that existed: its bytes (never shown) and what it was, e.g. "module1 okm"."""

    value: bytes = field(repr=False)
    name: str


@dataclass(frozen=True)
class Finding:
    """A part of a key in the log. No key bytes."""

    key: str
    form: str
    bus: str
    where: str
    time_us: int


@dataclass
class SearchResult:
    """What was looked for and where, and what was found (the first few of each key and form)."""

    keys: int = 0
    windows: int = 0
    frames: int = 0
    transfers: int = 0
    streams: int = 0
    found_keys: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Something was looked for, somewhere, and nothing was found."""
        return self.keys > 0 and self.frames > 0 and not self.findings


def _windows(value: bytes) -> Iterator[bytes]:
    for at in range(len(value) - WINDOW + 1):
        window = value[at : at + WINDOW]
        if len(set(window)) >= _LEAST_DISTINCT:
            yield window


def _base64_cores(window: bytes) -> Iterator[bytes]:
    """The base64 characters that the window alone decides, for its three places in a group of three bytes."""
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + window)
        first = -(-8 * shift // 6)
        end = (8 * (shift + WINDOW)) // 6
        yield text[first:end]


_WORD = 4
# Shorter data is looked through byte by byte.
_LEAST_BY_WORDS = 128
_CORE = 10  # characters of _base64_cores
_HEX = 2 * WINDOW
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_LOWER = bytes(range(0x41)) + bytes(range(0x61, 0x7B)) + bytes(range(0x5B, 0x100))
_HEX_RUNS = re.compile(rb"[0-9a-f]{%d,}" % _HEX)
_BASE64_RUNS = re.compile(rb"[A-Za-z0-9+/]{%d,}" % _CORE)


class KeySearch:
    """Looks for keys in bytes. Build it once: it makes a set of every window in every form."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys = 0
        # A window may belong to several keys: half A is also in what the pair secret was extracted from.
        self._raw: dict[bytes, list[str]] = {}
        self._words: set[int] = set()  # every 4 bytes of them in a row
        self._hex: dict[bytes, list[str]] = {}
        self._base64: dict[bytes, list[str]] = {}
        for key in keys:
            if len(key.value) < WINDOW:
                raise ValueError("%s is shorter than %d bytes: it cannot be searched for" % (key.name, WINDOW))
            self.keys += 1
            for window in _windows(key.value):
                self._raw.setdefault(window, []).append(key.name)
                for at in range(WINDOW - _WORD + 1):
                    self._words.add(int.from_bytes(window[at : at + _WORD], sys.byteorder))
                self._hex.setdefault(window.hex().encode(), []).append(key.name)
                for core in _base64_cores(window):
                    self._base64.setdefault(core, []).append(key.name)

    @property
    def windows(self) -> int:
        """Different windows looked for."""
        return len(self._raw)

    def _places(self, data: bytes) -> Iterable[int]:
        """Where in `data` a window may begin: wherever it does, one of the data's words of 4 bytes lies whole in its 8,
        so the others need no look. Megabytes of memory are compared as integers, in C."""
        if len(data) < _LEAST_BY_WORDS:
            return range(len(data) - WINDOW + 1)
        with memoryview(data)[: len(data) & -_WORD].cast("I") as words:
            known = self._words.intersection(words)
            if not known:
                return ()
            return {
                at
                for number, word in enumerate(words)
                if word in known
                for at in range(max(0, _WORD * (number + 1) - WINDOW), _WORD * number + 1)
            }

    def in_bytes(self, data: bytes) -> set[tuple[str, str]]:
        """(key, form) of everything found in `data`."""
        found: set[tuple[str, str]] = set()
        raw = self._raw
        for at in self._places(data):
            for name in raw.get(data[at : at + WINDOW], ()):
                found.add((name, "raw"))
        for form, table, size, runs, text in (
            ("hex", self._hex, _HEX, _HEX_RUNS, data.translate(_LOWER)),
            ("base64", self._base64, _CORE, _BASE64_RUNS, data.translate(_URL_SAFE)),
        ):
            for run in runs.finditer(text):
                for at in range(run.start(), run.end() - size + 1):
                    for name in table.get(text[at : at + size], ()):
                        found.add((name, form))
        return found

    def in_log(self, log: BusLog, result: SearchResult) -> None:
        """Look through a bus; what is found goes into `result`."""
        result.keys = self.keys
        result.windows = self.windows
        for frame in log.frames:
            result.frames += 1
            if len(frame.data) >= WINDOW:
                self._note(result, log, frame.data, _frame_name(frame), frame.time_us)
        for transfer in log.transfers:
            result.transfers += 1
            self._note(result, log, transfer.payload, _transfer_name(transfer), transfer.start_us)
        for identifier, frames in _by_stream(log.frames).items():
            result.streams += 1
            where = "all data of ID %08X" % identifier
            self._note(result, log, b"".join(frame.data for frame in frames), where, frames[0].time_us)
            rest = b"".join(frame.data[1:] for frame in frames)
            self._note(result, log, rest, where + " without first bytes", frames[0].time_us)

    def _note(self, result: SearchResult, log: BusLog, data: bytes, where: str, time_us: int) -> None:
        for name, form in sorted(self.in_bytes(data)):
            result.found_keys.add(name)
            if len(result.findings) < _SHOWN or name not in {item.key for item in result.findings}:
                result.findings.append(Finding(name, form, log.name, where, time_us))


def _frame_name(frame: LogFrame) -> str:
    return "frame %08X" % frame.identifier if frame.extended else "frame %03X" % frame.identifier


def _transfer_name(transfer: Transfer) -> str:
    return "%s of %d bytes, ID %08X" % (transfer.kind, len(transfer.payload), transfer.identifier)


def _by_stream(frames: list[LogFrame]) -> dict[int, list[LogFrame]]:
    streams: dict[int, list[LogFrame]] = {}
    for frame in frames:
        stream = frame.identifier & ~(TOGGLE | 0xFF00) if frame.extended else frame.identifier
        streams.setdefault(stream, []).append(frame)
    return streams


def search(keys: Iterable[Key], logs: Iterable[BusLog]) -> SearchResult:
    """Look for all keys in all logs."""
    looking = KeySearch(keys)
    result = SearchResult(keys=looking.keys, windows=looking.windows)
    for log in logs:
        looking.in_log(log, result)
    return result


# -- controls ----------------------------------------------------------------------------------------------------------

_HIDDEN_ID = 0x1F000042  # of no message
_ISOTP_ID = 0x431 << 18 | 0x40


def _frames(start_us: int, identifier: int, data: bytes, size: int = 8, head: bytes = b"") -> list[LogFrame]:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return [LogFrame(start_us + at, identifier, True, head + part) for at, part in enumerate(parts)]


def _isotp(start_us: int, payload: bytes) -> list[LogFrame]:
    parts = [bytes((0x10 | len(payload) >> 8, len(payload) & 0xFF)) + payload[:6]]
    for number, at in enumerate(range(6, len(payload), 7), 1):
        parts.append(bytes((0x20 | number & 15,)) + payload[at : at + 7])
    return [LogFrame(start_us + at, _ISOTP_ID, True, part) for at, part in enumerate(parts)]


def hide(key: bytes, way: str, time_us: int) -> list[LogFrame]:
    """Frames that give a key away in one of the WAYS."""
    filler = secrets.token_bytes(3)
    if way == "raw frames":
        return _frames(time_us, _HIDDEN_ID, key)
    if way == "raw, shifted":
        return _frames(time_us, _HIDDEN_ID, filler + key)
    if way == "raw, numbered frames":
        return _frames(time_us, _HIDDEN_ID, key, 7, b"\x55")
    if way == "one window":
        return [LogFrame(time_us, _HIDDEN_ID, True, key[5 : 5 + WINDOW])]
    if way == "hex transfer":
        return _isotp(time_us, filler + key.hex().upper().encode())
    if way == "base64 transfer":
        return _isotp(time_us, filler + base64.urlsafe_b64encode(filler[:1] + key))
    if way == "raw transfer":
        return _isotp(time_us, filler + key + filler)
    raise ValueError("no way %r to hide a key" % way)


WAYS = (
    "raw frames",
    "raw, shifted",
    "raw, numbered frames",
    "one window",
    "hex transfer",
    "base64 transfer",
    "raw transfer",
)


@dataclass(frozen=True)
class Controls:
    """Whether the search can be believed: `missed` are the ways of hiding it did not see through (none), `false` the
    keys it claimed to see that were never anywhere (none)."""

    missed: tuple[str, ...]
    false: int
    decoys: int

    @property
    def ok(self) -> bool:
        """Nothing missed, nothing made up."""
        return not self.missed and not self.false


def control(log: BusLog, decoys: int = 200, rng: random.Random | None = None) -> Controls:
    """Hide a key in a copy of a log in every way, and look for it; look for random keys in the log itself."""
    take = secrets.token_bytes if rng is None else rng.randbytes
    missed = []
    at_us = log.frames[-1].time_us + 1 if log.frames else 0
    sample = log.frames[-200:]
    for way in WAYS:
        key = take(32)
        copy = assemble(log.name, sample + hide(key, way, at_us))
        if search([Key(key, "hidden")], [copy]).clean:
            missed.append(way)
    never = [Key(take(32), "decoy %d" % number) for number in range(decoys)]
    return Controls(tuple(missed), len(search(never, [log]).found_keys), decoys)


def keys_of(tapped: Mapping[str, Iterable[str]], ignored: Iterable[str] = ()) -> list[Key]:
    """The keys of a tap (hex -> who had it and as what), without those in `ignored` and those too short to be one."""
    leave = set(ignored)
    return [
        Key(bytes.fromhex(text), ", ".join(sorted(names)))
        for text, names in tapped.items()
        if text not in leave and len(text) >= 2 * WINDOW
    ]
