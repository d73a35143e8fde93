"""A model of the MCP2515 after its data sheet DS20001801: registers (table 11-1), SPI instructions (table 12-1).

What the bus does is up to the test: `arrive` brings a frame, `leave` sends the next one, `errors` sets the counters.
"""

CANSTAT, CANCTRL, TEC, REC = 0x0E, 0x0F, 0x1C, 0x1D
CNF3, CNF2, CNF1, CANINTE, CANINTF, EFLG = 0x28, 0x29, 0x2A, 0x2B, 0x2C, 0x2D
TXBCTRL = (0x30, 0x40, 0x50)
RXBCTRL = (0x60, 0x70)
FILTERS = (0x00, 0x04, 0x08, 0x10, 0x14, 0x18)
MASKS = (0x20, 0x24)
# Table 11-1: shaded registers take the BIT MODIFY instruction.
BIT_MODIFY = (0x0C, 0x0D, CANCTRL, CNF3, CNF2, CNF1, CANINTE, CANINTF, EFLG) + TXBCTRL + RXBCTRL
# Sections 4.5 and 5.5: writable in configuration mode only.
CONFIGURATION_ONLY = (0x0D, CNF3, CNF2, CNF1) + tuple(range(0x0C)) + tuple(range(0x10, 0x1C)) + tuple(range(0x20, 0x28))


def id_bytes(ident, extended):
    """SIDH, SIDL, EID8, EID0 (registers 3-3 to 3-6)."""
    if extended:
        return bytes((ident >> 21, (ident >> 18 & 7) << 5 | 0x08 | ident >> 16 & 3, ident >> 8 & 0xFF, ident & 0xFF))
    return bytes((ident >> 3, (ident & 7) << 5, 0, 0))


class Chip:
    """The chip with its pins: call it as chip select, `write_readinto` as `machine.SPI`, `interrupt` is INT."""

    def __init__(self):
        self.alive = True
        self.bus_idle = True
        self.selected = False
        self.transactions = 0
        self.registers = bytearray(128)
        self.lost = 0
        self.interrupt = Interrupt(self)
        self.on_transaction = None
        self.power_on()

    def power_on(self):
        """Reset state (section 9.0, table 11-1)."""
        self.registers[:] = bytearray(128)
        self.registers[CANCTRL] = 0x87
        self._mode(0x80)

    def _mode(self, mode):
        if mode == 0x80:
            # Section 10.1: all error counters are cleared.
            self.registers[TEC] = self.registers[REC] = 0
            self.registers[EFLG] &= 0xC0
        self.registers[CANSTAT] = mode

    @property
    def mode(self):
        return self.registers[CANSTAT] & 0xE0

    # -- SPI -----------------------------------------------------------------------------------------------------------

    def __call__(self, level):
        """Chip select."""
        if level == 0:
            assert not self.selected, "chip select is low already: two transactions in one another"
            self.selected = True
        elif self.selected:
            self.selected = False
            self.interrupt.update()
            if self.on_transaction is not None:
                self.on_transaction(self)

    def write_readinto(self, out, into):
        """One transaction."""
        assert self.selected and len(out) == len(into)
        self.transactions += 1
        out = bytes(out)
        if not self.alive:
            into[:] = b"\xff" * len(into)
            return
        answer = self._instruction(out[0], out[1:])
        into[:] = b"\x00" + answer + bytes(len(into) - 1 - len(answer))

    def _instruction(self, code, rest):
        if code == 0xC0:
            self.power_on()
        elif code == 0x03:
            return b"\x00" + bytes([self._read((rest[0] + at) & 0x7F) for at in range(len(rest) - 1)])
        elif code == 0x02:
            for at in range(len(rest) - 1):
                self._write((rest[0] + at) & 0x7F, rest[1 + at])
        elif code == 0x05:
            assert rest[0] in BIT_MODIFY, "BIT MODIFY of %02X writes the whole register" % rest[0]
            old = self.registers[rest[0]]
            self._write(rest[0], (old & ~rest[1] & 0xFF) | (rest[2] & rest[1]))
        elif code == 0xA0:
            status = self.registers[CANINTF] & 3
            for index in range(3):
                status |= (self.registers[TXBCTRL[index]] >> 3 & 1) << (2 + 2 * index)
                status |= (self.registers[CANINTF] >> (2 + index) & 1) << (3 + 2 * index)
            return bytes([status] * len(rest))
        elif code & 0xF9 == 0x90:
            buffer = code >> 2 & 1
            start = RXBCTRL[buffer] + (6 if code & 2 else 1)
            answer = bytes(self.registers[start : start + len(rest)])
            self.registers[CANINTF] &= 0xFF ^ 1 << buffer  # when chip select rises
            return answer
        elif code & 0xF8 == 0x40:
            start = TXBCTRL[(code & 7) // 2] + (6 if code & 1 else 1)
            for at in range(len(rest)):
                self._write(start + at, rest[at])
        elif code & 0xF8 == 0x80:
            for index in range(3):
                if code >> index & 1:
                    self.registers[TXBCTRL[index]] |= 0x08
        else:
            raise AssertionError("no such instruction: %02X" % code)
        return b""

    def _read(self, register):
        # CANSTAT and CANCTRL are in every row.
        if register & 0x0F in (0x0E, 0x0F):
            register &= 0x0F
        return self.registers[register]

    def _write(self, register, value):
        if register & 0x0F in (0x0E, 0x0F):
            register &= 0x0F
        if register in CONFIGURATION_ONLY and self.mode != 0x80:
            raise AssertionError("register %02X is written outside configuration mode" % register)
        if register in (CANSTAT, TEC, REC):
            return
        for control in TXBCTRL:
            if control < register < control + 14:
                assert not self.registers[control] & 0x08, "a transmit buffer is written while it waits to be sent"
        if register == EFLG:
            self.registers[EFLG] = self.registers[EFLG] & 0x3F | value & 0xC0
            return
        self.registers[register] = value
        if register == CANCTRL:
            wanted = value & 0xE0
            if wanted == 0x80 or self.bus_idle:
                self._mode(wanted)

    # -- the bus -------------------------------------------------------------------------------------------------------

    def _matches(self, buffer, ident, extended):
        """Section 4.5: whether a filter of the receive buffer takes the frame."""
        assert self.registers[RXBCTRL[buffer]] & 0x60 == 0, "RXM 11 takes broken frames too"
        at = MASKS[buffer]
        mask = bytes(self.registers[at : at + 4])
        wanted = id_bytes(ident, extended)
        for number in (0, 1) if buffer == 0 else (2, 3, 4, 5):
            code = bytes(self.registers[FILTERS[number] : FILTERS[number] + 4])
            if (code[1] & 0x08 != 0) != extended:
                continue
            count = 4 if extended else 2
            bits = (0xFF, 0xE3 if extended else 0xE0, 0xFF, 0xFF)
            if all([(wanted[i] ^ code[i]) & mask[i] & bits[i] == 0 for i in range(count)]):
                return True
        return False

    def arrive(self, ident, data=b"", extended=True, remote=False):
        """A good frame on the bus; whether it was taken (figure 4-3)."""
        if not self.alive or self.mode != 0:
            return False
        if self._matches(0, ident, extended):
            if not self.registers[CANINTF] & 1:
                return self._store(0, ident, data, extended, remote)
            if not self.registers[RXBCTRL[0]] & 0x04:
                return self._overflow(0)
            if not self.registers[CANINTF] & 2:
                return self._store(1, ident, data, extended, remote)
            return self._overflow(1)
        if self._matches(1, ident, extended):
            if not self.registers[CANINTF] & 2:
                return self._store(1, ident, data, extended, remote)
            return self._overflow(1)
        return False

    def _overflow(self, buffer):
        self.lost += 1
        self.registers[EFLG] |= 0x40 << buffer
        return False

    def _store(self, buffer, ident, data, extended, remote):
        at = RXBCTRL[buffer]
        head = bytearray(id_bytes(ident, extended))
        if remote and not extended:
            head[1] |= 0x10
        self.registers[at + 1 : at + 5] = head
        size = data if remote else len(data)
        self.registers[at + 5] = size | (0x40 if remote and extended else 0)
        if not remote:
            self.registers[at + 6 : at + 6 + size] = data
        self.registers[CANINTF] |= 1 << buffer
        self.interrupt.update()
        return True

    def leave(self):
        """The frame the chip sends next, (ID, extended, remote, data), or None (section 3.2)."""
        best = None
        for index in range(3):
            control = self.registers[TXBCTRL[index]]
            # Highest TXP first; among equals the highest buffer.
            if control & 0x08 and (best is None or (control & 3, index) > best):
                best = (control & 3, index)
        if best is None or self.mode != 0 or self.registers[EFLG] & 0x20:
            return None
        at = TXBCTRL[best[1]]
        self.registers[at] &= 0xF7
        self.registers[CANINTF] |= 4 << best[1]
        high, low, eid8, eid0, dlc = self.registers[at + 1 : at + 6]
        extended = low & 0x08 != 0
        ident = high << 3 | low >> 5
        if extended:
            ident = ident << 18 | (low & 3) << 16 | eid8 << 8 | eid0
        size = dlc & 0x0F
        remote = dlc & 0x40 != 0
        return ident, extended, remote, size if remote else bytes(self.registers[at + 6 : at + 6 + size])

    def errors(self, tec, rec):
        """Set the error counters; EFLG follows (register 6-3)."""
        self.registers[TEC] = min(tec, 255)
        self.registers[REC] = rec
        flags = self.registers[EFLG] & 0xC0
        flags |= 0x20 if tec > 255 else 0
        flags |= 0x10 if tec > 127 else 0
        flags |= 0x08 if rec > 127 else 0
        flags |= 0x04 if tec >= 96 else 0
        flags |= 0x02 if rec >= 96 else 0
        flags |= 0x01 if tec >= 96 or rec >= 96 else 0
        self.registers[EFLG] = flags

    def waiting(self):
        """Transmit buffers that wait."""
        return sum([self.registers[control] >> 3 & 1 for control in TXBCTRL])


class Interrupt:
    """The INT pin as a `machine.Pin`: low while an enabled flag is set (section 7.0)."""

    IRQ_FALLING = 2

    def __init__(self, chip):
        self._chip = chip
        self._level = 1
        self._handler = None

    def irq(self, handler, trigger):
        """Take the handler."""
        assert trigger == self.IRQ_FALLING
        self._handler = handler

    def __call__(self):
        return self._level

    def update(self):
        """Follow the flags; the handler runs at the falling edge."""
        registers = self._chip.registers
        level = 0 if registers[CANINTE] & registers[CANINTF] else 1
        fell = level < self._level
        self._level = level
        if fell and self._handler is not None:
            self._handler(self)
