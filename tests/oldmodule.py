"""A module of the field as it hears: its acceptance filter and its parser, which know nothing of bit 17.

The controller compares bits 28..26 (101b) and 7..0 of an ID, the parser looks at the base alone; lengths are checked
only for STATUS_REQUEST (1), STATE_CHANGE (2) and DETAIL_REQUEST (3).
"""

ISOLATE = "isolate"


class OldModule:
    """`obeyed`: (base, what it did, bit 17) of everything it took for a command. `number` is its module id."""

    def __init__(self, number):
        self.number = number
        self.state = 0
        self.max_state = 3
        self.time = None
        self.registered = True
        self.accepted = 0
        self.obeyed = []

    def on_frame(self, frame):
        """Take a frame of the module bus."""
        head = frame.arbitration_id
        if not frame.is_extended_id or head >> 26 != 5 or head & 0xFF not in (0, self.number):
            return
        self.accepted += 1
        base = head >> 18
        data = bytes(frame.data)
        done = self._parse(base, data)
        if done is not None:
            self.obeyed.append((base, done, head >> 17 & 1))

    def _parse(self, base, data):
        size = len(data)
        if base == 0x514 and size == 2:
            self.state = min(data[1] & 15, self.max_state)
            return self.state
        if base == 0x517 and size:
            self.max_state = data[0] & 15
            self.state = min(self.state, self.max_state)
            return self.max_state
        if base == 0x516 and size == 8:
            self.time = data
            return data
        if base in (0x518, 0x51E) and size:
            self.registered = False
            self.state = 0
            return "deregister"
        if base == 0x51F and size:
            self.state = 0
            return ISOLATE
        if (base == 0x512 and size == 1) or (base == 0x515 and size == 3) or (base == 0x511 and size):
            return "answer"
        return None
