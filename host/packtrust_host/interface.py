"""python-can interface `packtrust`: any other bus, with the sealed records of a host that holds keys opened.

    can_logger -i packtrust -c "slcan:/dev/ttyACM0?key_log=keys.log"
    cantools monitor -i packtrust -c "slcan:/dev/ttyACM0?key_log=keys.log" packtrust.dbc
    can.Bus(interface="packtrust", channel="socketcan:can0", key_log="keys.log")

Frames of a record that opens are replaced by one message with the clear ID (bits 17..8 zero) and the plaintext; a
plaintext of more than 8 bytes comes as a CAN FD message. Everything else, what does not open
included, is passed on as it is.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import can

from packtrust.arbitration import ENCRYPTED, base_of, canonical, clear_of, node_of, stream_of
from packtrust.channel import CITATION_LENGTH
from packtrust.policy import DEFAULT_POLICY, Policy
from packtrust.record import OVERHEAD, iv_base_of
from packtrust.segmentation import FD_PAYLOAD_MAX, Reassembler
from packtrust_host.keylog import KeyLogReader
from packtrust_host.urls import parse_bus_url

_FD_MESSAGE = 8


class Opener:
    """Opens records on the way past: frames in, messages out. Passive: it judges nothing but the tag.

    `stats` counts "opened", "unknown-session", "tag", "short" and "long" (plaintext too long for one message).
    """

    def __init__(self, keys: KeyLogReader, policy: Policy = DEFAULT_POLICY) -> None:
        self._keys = keys
        self._policy = policy
        self._reassembler = Reassembler(streams=256)
        self._held: dict[int, list[can.Message]] = {}
        self.stats: dict[str, int] = {}

    def _count(self, what: str) -> None:
        self.stats[what] = self.stats.get(what, 0) + 1

    def feed(self, message: can.Message) -> list[can.Message]:
        """What a reader should see now for this frame."""
        identifier = message.arbitration_id
        if (
            not message.is_extended_id
            or message.is_remote_frame
            or message.is_error_frame
            or not identifier & ENCRYPTED
            or not self._policy.is_sealable(base_of(identifier))
        ):
            return [message]
        stream = stream_of(identifier)
        held = self._held.setdefault(stream, [])
        shown: list[can.Message] = []
        if held and (message.is_fd or identifier >> 12 & 15 == 0):
            shown.extend(held)  # a partial record that never ended
            held.clear()
        held.append(message)
        # Time stands still here: an adapter's time stamps tell when this host got round to reading, and a reader that
        # was held up for 50 ms must not lose the record.
        payload = self._reassembler.feed(_View(message), 0)
        last = message.is_fd or identifier >> 12 & 15 == identifier >> 8 & 15
        if payload is None:
            if last:
                shown.extend(held)
                held.clear()
            return shown
        opened = self._open(canonical(identifier), bytes(payload), message)
        shown.extend(held if opened is None else [opened])
        held.clear()
        return shown

    def _open(self, full_id: int, record: bytes, last: can.Message) -> can.Message | None:
        if len(record) < OVERHEAD:
            self._count("short")
            return None
        cipher = self._keys.cipher(iv_base_of(record))
        if cipher is None:
            self._count("unknown-session")
            return None
        plaintext = cipher.open(full_id, record)
        if plaintext is None:
            self._count("tag")
            return None
        if node_of(full_id) and self._policy.needs_citation(base_of(full_id)):  # a broadcast has none
            plaintext = plaintext[CITATION_LENGTH:]
        if len(plaintext) > FD_PAYLOAD_MAX:
            self._count("long")
            return None
        self._count("opened")
        return can.Message(
            timestamp=last.timestamp,
            arbitration_id=clear_of(full_id),
            is_extended_id=True,
            data=plaintext,
            is_fd=len(plaintext) > _FD_MESSAGE,
            is_rx=last.is_rx,
            channel=last.channel,
        )


class _View:
    """The attributes of a message the reassembler looks at; `data` as bytes, so that it can be kept."""

    __slots__ = ("arbitration_id", "data", "is_extended_id", "is_fd")

    def __init__(self, message: can.Message) -> None:
        self.arbitration_id = message.arbitration_id
        self.data = bytes(message.data)
        self.is_extended_id = message.is_extended_id
        self.is_fd = message.is_fd


class PacktrustBus(can.BusABC):
    """A bus over another bus.

    channel  URL of the bus below, `interface:channel?option=value`; `key_log` may be one of the options, for tools
             that pass on a channel and nothing else
    key_log  file written by `packtrust monitor --key-log FILE`
    Other options go to the bus below.
    """

    def __init__(
        self,
        channel: str,
        key_log: str | Path | None = None,
        can_filters: can.typechecking.CanFilters | None = None,
        **options: Any,
    ) -> None:
        interface, lower, defaults = parse_bus_url(channel)
        key_log = defaults.pop("key_log", key_log)
        if key_log is None:
            raise can.CanInterfaceNotImplementedError(
                "the packtrust interface needs keys: give key_log=FILE, or the channel as CHANNEL?key_log=FILE, "
                "with the file that `packtrust monitor --key-log FILE` writes"
            )
        self._lower = can.Bus(interface=interface, channel=lower, **{**defaults, **options})
        self._opener = Opener(KeyLogReader(Path(key_log)))
        self._ready: deque[can.Message] = deque()
        self.channel_info = f"packtrust over {self._lower.channel_info}"
        super().__init__(channel=channel, can_filters=can_filters)

    @property
    def opener_stats(self) -> dict[str, int]:
        """What was opened, and what not, by cause."""
        return self._opener.stats

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        if not self._ready:
            message = self._lower.recv(timeout)
            if message is None:
                return None, False
            self._ready.extend(self._opener.feed(message))
        return (self._ready.popleft() if self._ready else None), False

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Send a frame as it is: this interface reads along, it has no voice of its own."""
        self._lower.send(msg, timeout)

    def shutdown(self) -> None:
        """Close the bus below too."""
        super().shutdown()
        self._lower.shutdown()

    @staticmethod
    def _detect_available_configs() -> list[can.typechecking.AutoDetectedConfig]:
        return []
