"""A sensor: answers the display's handshake, sends a sealed reading every 100 ms, obeys sealed commands."""

from bus import Bus, ticks_ms, urandom
from keys import SECRET

from packtrust import OPENED, RESPONDER, Channel
from packtrust.policy import Policy

READING, SET_OFFSET, NODE = 0x120 << 18 | 7, 0x121 << 18 | 7, 7
POLICY = Policy.open_bus(command_bases=(0x121,))

bus = Bus("sensor")
channel = Channel(SECRET, RESPONDER, NODE, ticks_ms, urandom, "sensor", "display", policy=POLICY)
offset, due = 0, ticks_ms()
while bus.is_open:
    frame = bus.recv(10)
    event = channel.feed(frame) if frame else None
    if event and event.kind == OPENED and event.arbitration_id == SET_OFFSET:
        offset = event.data[0]
        print("sensor: offset is now", offset)
    if channel.established and ticks_ms() - due >= 0:
        due = ticks_ms() + 100
        bus.send(channel.seal(READING, bytes((20 + offset, 55))))
    channel.tick()
    bus.send(channel.outgoing())
