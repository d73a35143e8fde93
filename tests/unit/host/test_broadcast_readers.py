"""Who holds a pair's session keys reads along what the pack broadcasts, too: the log reader and the key log."""

from pathlib import Path

import can

from packtrust.arbitration import ENCRYPTED, compose
from packtrust.group import GROUP_DIRECTION, GroupSender
from packtrust.record import RecordCipher
from packtrust.workspace import Workspace
from packtrust_host.demo.records import KeyRing
from packtrust_host.interface import Opener
from packtrust_host.keylog import KeyLogReader, KeyLogWriter

PACK, MODULE = bytes(range(32)), bytes(range(50, 82))
MATERIAL = bytes(range(100, 136))
SECRET = bytes(range(150, 182))
GROUP_KEY = compose(0x51B, 3, True)
HEARTBEAT = compose(0x517, 0)


def ring_with_the_group() -> KeyRing:
    ring = KeyRing([MATERIAL], [MODULE, PACK])
    pair = RecordCipher(MATERIAL[:32], MATERIAL[32:], 0, PACK[:4])
    record = pair.seal(GROUP_KEY, 1, bytes(4) + bytes(4) + SECRET)
    plaintext, direction = ring.open(GROUP_KEY, record) or (b"", -1)
    assert direction == 0
    ring.learn_group(record[:4], plaintext[8:])
    return ring


def broadcast() -> list[can.Message]:
    sender = GroupSender(Workspace(), SECRET, PACK)
    return [
        can.Message(arbitration_id=frame.arbitration_id, data=bytes(frame.data), is_extended_id=True)
        for frame in sender.seal(HEARTBEAT, b"\x02")
    ]


def test_the_log_reader_learns_the_group_key_from_the_record_that_brings_it() -> None:
    record = b"".join(bytes(message.data) for message in broadcast())
    assert ring_with_the_group().open(HEARTBEAT | ENCRYPTED, record) == (b"\x02", GROUP_DIRECTION)
    assert KeyRing([MATERIAL], [MODULE, PACK]).open(HEARTBEAT | ENCRYPTED, record) is None


def test_a_key_log_with_it_opens_broadcasts(tmp_path: Path) -> None:
    ring = ring_with_the_group()
    writer = KeyLogWriter(tmp_path / "keys.log")
    for entry in ring.used():
        writer(*entry)
    writer.close()
    opener = Opener(KeyLogReader(tmp_path / "keys.log"))
    shown = [message for frame in broadcast() for message in opener.feed(frame)]
    assert [(message.arbitration_id, bytes(message.data)) for message in shown] == [(HEARTBEAT, b"\x02")]
