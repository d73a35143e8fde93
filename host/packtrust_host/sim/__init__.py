"""Virtual CAN: the physics of a bus, faults by request, SLCAN ports, a real-time server."""
