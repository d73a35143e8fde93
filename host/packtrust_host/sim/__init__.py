"""Virtual CAN: buses with the physics of CAN, faults by request, SLCAN ports, a real-time server."""
