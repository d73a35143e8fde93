"""A display: starts the handshake, shows the sensor's readings, sends it a command."""

from bus import Bus, ticks_ms, urandom
from keys import SECRET

from packtrust import ESTABLISHED, INITIATOR, OPENED, Channel
from packtrust.policy import Policy

READING, SET_OFFSET, NODE = 0x120 << 18 | 7, 0x121 << 18 | 7, 7
POLICY = Policy.open_bus(command_bases=(0x121,))

bus = Bus("display")
channel = Channel(SECRET, INITIATOR, NODE, ticks_ms, urandom, "display", "sensor", policy=POLICY)
channel.connect()
readings = 0
while bus.is_open and readings < 10:
    bus.send(channel.outgoing())
    frame = bus.recv(10)
    event = channel.feed(frame) if frame else None
    if event and event.kind == ESTABLISHED:
        print("display: session established")
    if event and event.kind == OPENED and event.arbitration_id == READING:
        readings += 1
        print("display: temperature", event.data[0], "humidity", event.data[1])
        if readings == 5:
            bus.send(channel.seal(SET_OFFSET, bytes((3,))))
    channel.tick()
