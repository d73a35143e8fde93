"""The python-can plugin: opened records for who holds keys, raw frames for who does not."""

from __future__ import annotations

import stat

import can
import pytest

from packtrust.channel import Channel
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust_host.interface import PacktrustBus
from packtrust_host.keylog import KeyLogReader, KeyLogWriter
from packtrust_host.urls import BusUrlError, open_bus, parse_bus_url

STATUS_1 = 0x502 << 18 | 5
STATE_CHANGE = 0x514 << 18 | 5
CHANNEL = "packtrust-plugin-test"


def connected(path):
    """Two channels with a session, the initiator writing a key log."""
    writer = KeyLogWriter(path)
    ends = [
        Channel(
            bytes(range(32)),
            role,
            5,
            lambda: 1000,
            lambda n, r=role: bytes([r]) * n,
            *names,
            key_log=log,
        )
        for role, names, log in ((INITIATOR, ("a", "b"), writer), (RESPONDER, ("b", "a"), None))
    ]
    ends[0].connect()
    while True:
        moved = False
        for sender, receiver in (ends, ends[::-1]):
            for frame in sender.outgoing():
                moved = True
                receiver.feed(frame)
        if not moved:
            writer.close()
            return ends


@pytest.fixture
def bus(tmp_path):
    connected_ends = connected(tmp_path / "keys.log")
    with (
        can.Bus(interface="virtual", channel=CHANNEL) as sender,
        PacktrustBus(f"virtual:{CHANNEL}", key_log=tmp_path / "keys.log") as reader,
    ):
        yield connected_ends, sender, reader


def send(sender, frames):
    for frame in frames:
        sender.send(
            can.Message(
                arbitration_id=frame.arbitration_id,
                data=frame.data,
                is_extended_id=True,
                is_fd=frame.is_fd,
            )
        )


def test_a_record_is_shown_as_one_message_with_its_clear_id(bus):
    (initiator, responder), sender, reader = bus
    send(sender, responder.seal(STATUS_1, b"12345678"))
    message = reader.recv(1)
    assert (message.arbitration_id, bytes(message.data), message.is_fd) == (
        STATUS_1,
        b"12345678",
        False,
    )
    send(sender, initiator.seal(STATE_CHANGE, b"\x00\x03\x00\x00"))
    assert bytes(reader.recv(1).data) == b"\x00\x03\x00\x00"  # without the citation
    send(sender, responder.seal(STATUS_1, bytes(range(20))))
    message = reader.recv(1)
    assert message.is_fd and bytes(message.data) == bytes(range(20))
    assert reader.recv(0) is None


def test_clear_frames_pass(bus):
    _, sender, reader = bus
    sender.send(can.Message(arbitration_id=0x410, data=b"abc", is_extended_id=False))
    assert reader.recv(1).arbitration_id == 0x410


def test_what_does_not_open_is_shown_raw(bus):
    (_, responder), sender, reader = bus
    frames = [frame.copy() for frame in responder.seal(STATUS_1, b"12345678")]
    frames[1].data = b"\x00" * 8
    send(sender, frames)
    shown = [reader.recv(1) for _ in range(5)]
    assert [message.arbitration_id for message in shown] == [frame.arbitration_id for frame in frames]
    assert reader.opener_stats == {"tag": 1}
    frames = [frame.copy() for frame in responder.seal(STATUS_1, b"12345678")]
    send(sender, frames[:2])
    send(sender, responder.seal(STATUS_1, b"87654321"))
    shown = [reader.recv(1) for _ in range(3)]
    assert [bytes(message.data) for message in shown] == [
        *[f.data for f in frames[:2]],
        b"87654321",
    ]


def test_a_session_that_starts_later_is_read_too(bus, tmp_path):
    _, sender, reader = bus
    with (tmp_path / "keys.log").open("ab") as file:
        file.write(b"packtrust-1 1 garbage\n")
    send(sender, connected(tmp_path / "other.log")[1].seal(STATUS_1, b"12345678"))  # same entropy, same keys
    assert bytes(reader.recv(1).data) == b"12345678"


def test_the_key_log_may_come_with_the_channel(tmp_path):
    ends = connected(tmp_path / "keys.log")
    with (
        can.Bus(interface="virtual", channel="other") as sender,
        can.Bus(interface="packtrust", channel=f"virtual:other?key_log={tmp_path / 'keys.log'}") as reader,
    ):
        send(sender, ends[1].seal(STATUS_1, b"12345678"))
        assert bytes(reader.recv(1).data) == b"12345678"


def test_without_keys_it_says_what_to_give():
    with pytest.raises(can.CanInterfaceNotImplementedError, match="key_log=FILE"):
        PacktrustBus("virtual:x")


def test_the_key_log_is_for_its_owner_alone_and_shows_nothing_in_repr(tmp_path):
    connected(tmp_path / "keys.log")
    assert stat.S_IMODE((tmp_path / "keys.log").stat().st_mode) == 0o600
    reader = KeyLogReader(tmp_path / "keys.log")
    words = (tmp_path / "keys.log").read_text().split()
    assert reader.cipher(bytes.fromhex(words[2])) is not None
    assert words[3] not in repr(reader)
    assert reader.cipher(b"none") is None


def test_bus_urls():
    assert parse_bus_url("socketcan:can0") == ("socketcan", "can0", {"bitrate": 500000})
    assert parse_bus_url("slcan:/dev/ttyACM0?bitrate=250000&listen_only=true") == (
        "slcan",
        "/dev/ttyACM0",
        {"bitrate": 250000, "listen_only": True, "sleep_after_open": 0.0},
    )
    for bad in ("", "can0", "slcan:", ":x"):
        with pytest.raises(BusUrlError, match="interface:channel"):
            parse_bus_url(bad)
    with pytest.raises(BusUrlError, match="plugged in"):
        open_bus("slcan:/nonexistent/tty")
