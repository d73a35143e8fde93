"""A model of the MCP2518FD after its data sheet DS20006027: chapter 3 (register map, registers, message objects, RAM)
and chapter 4 (SPI instructions); how FIFOs work is in the family reference manual, DS20005678.

FIFO 1 transmits and FIFO 2 receives, as the driver uses them. What the bus does is up to the test: `arrive` brings a
frame, `leave` sends the next one, `errors` sets the counters.
"""

LENGTHS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64)

C1CON, C1NBTCFG, C1DBTCFG, C1TDC, C1INT, C1TREC = 0x000, 0x004, 0x008, 0x00C, 0x01C, 0x034
FIFOCON = (None, 0x05C, 0x068)
FIFOSTA = (None, 0x060, 0x06C)
FIFOUA = (None, 0x064, 0x070)
C1FLTCON, C1FLTOBJ = 0x1D0, 0x1F0
RAM, OSC = 0x400, 0xE00


class Chip:
    """The chip with its pins: call it as chip select, `write_readinto` as `machine.SPI`, `interrupt` is INT1."""

    def __init__(self, crystal=40000000):
        self.alive = True
        self.bus_idle = True
        self.crystal_runs = True
        self.crystal = crystal
        self.selected = False
        self.lost = 0
        self.memory = bytearray(0xE18)
        self.power_on()

    def power_on(self):
        """Reset state (chapter 3)."""
        self.memory[:0x400] = bytearray(0x400)
        self.memory[0xE00:] = bytearray(0x18)
        self.set32(C1CON, 0x04980760)
        self.set32(OSC, 0x00000460 if self.crystal_runs else 0x60)
        for fifo in (1, 2):
            self.set32(FIFOCON[fifo], 0x00600400)
        self.head = [0, 0, 0]  # next object the host fills (transmit) or the bus fills (receive)
        self.tail = [0, 0, 0]  # next object that leaves
        self.count = [0, 0, 0]
        self._update()

    def get32(self, address):
        return int.from_bytes(bytes(self.memory[address : address + 4]), "little")

    def set32(self, address, value):
        self.memory[address : address + 4] = value.to_bytes(4, "little")

    @property
    def mode(self):
        return self.memory[C1CON + 2] >> 5

    # -- SPI -----------------------------------------------------------------------------------------------------------

    def __call__(self, level):
        """Chip select."""
        assert level or not self.selected, "two transactions in one another"
        self.selected = level == 0

    def interrupt(self):
        """INT1 (with IOCON as after reset): low while RXIE and RXIF are set."""
        waiting = self.count[2] and self.memory[FIFOCON[2]] & 1 and self.memory[C1INT + 2] & 2
        return 0 if waiting else 1

    def write_readinto(self, out, into):
        """One transaction."""
        assert self.selected and len(out) == len(into) >= 2
        out = bytes(out)
        into[:] = bytes(len(into))
        if not self.alive:
            into[:] = b"\xff" * len(into)
            return
        code = out[0] >> 4
        address = (out[0] & 0x0F) << 8 | out[1]
        if RAM <= address < RAM + 2048:
            # Chapter 4: RAM is accessed in words.
            assert address % 4 == 0 and len(out) % 4 == 2, "RAM is read and written in words of four bytes"
        if code == 0:
            assert address == 0 and len(out) == 2
            assert self.mode == 4, "RESET is for configuration mode (chapter 4)"
            self.power_on()
        elif code == 3:
            self._update()
            into[2:] = self.memory[address : address + len(into) - 2]
        elif code == 2:
            for at in range(2, len(out)):
                self._write(address + at - 2, out[at])
            self._update()
        else:
            raise AssertionError("no such instruction: %X" % code)

    def _write(self, address, value):
        memory = self.memory
        if RAM <= address < RAM + 2048:
            memory[address] = value
        elif address == C1CON + 3:
            memory[address] = value
            wanted = value & 7
            if wanted == 4 or (self.mode == 4 and self.bus_idle) or wanted == self.mode:
                if wanted == 4 and self.mode != 4:
                    self.set32(C1TREC, 0)
                memory[C1CON + 2] = memory[C1CON + 2] & 0x1F | wanted << 5
        elif address == C1CON + 2:
            self._configuration_only(address)
            memory[address] = memory[address] & 0xE0 | value & 0x1F
        elif C1NBTCFG <= address < C1TDC + 4 or address in (C1CON, C1CON + 1):
            self._configuration_only(address)
            memory[address] = value
        elif address in (OSC, OSC + 1, OSC + 2, OSC + 3):
            if address == OSC:
                memory[OSC] = value
                if value & 1 and self.crystal == 4000000:
                    memory[OSC + 1] |= 1
        elif address in (FIFOCON[1], FIFOCON[2], FIFOCON[1] + 2, FIFOCON[2] + 2, FIFOCON[1] + 3, FIFOCON[2] + 3):
            # PLSIZE, FSIZE, TXPRI, TXEN: configuration mode (C1FIFOCONm)
            self._configuration_only(address)
            memory[address] = value
        elif address in (FIFOCON[1] + 1, FIFOCON[2] + 1):
            self._control(1 if address == FIFOCON[1] + 1 else 2, value)
        elif address in (FIFOSTA[1], FIFOSTA[2]):
            if not value & 0x08:
                memory[address] &= 0xF7
        elif C1FLTOBJ <= address < C1FLTOBJ + 256:
            number = (address - C1FLTOBJ) // 8
            assert not memory[C1FLTCON + number] & 0x80, "a filter is changed while it is on (C1FLTOBJm)"
            memory[address] = value
        elif C1FLTCON <= address < C1FLTCON + 32 or C1INT <= address < C1INT + 4:
            memory[address] = value
        elif FIFOSTA[1] <= address < FIFOUA[1] + 4 or FIFOSTA[2] <= address < FIFOUA[2] + 4:
            raise AssertionError("%03X cannot be written" % address)
        else:
            raise AssertionError("the model has no register %03X" % address)

    def _configuration_only(self, address):
        assert self.mode == 4, "%03X is written outside configuration mode" % address

    def _control(self, fifo, value):
        if value & 0x04:  # FRESET
            self.head[fifo] = self.tail[fifo] = self.count[fifo] = 0
        if value & 0x01:  # UINC
            if fifo == 1:
                assert self.count[1] < self.depth(1), "UINC of a full FIFO"
                self.head[1] = (self.head[1] + 1) % self.depth(1)
                self.count[1] += 1
                assert value & 0x02, "a frame is left in the FIFO without TXREQ"
            else:
                assert self.count[2], "UINC of an empty FIFO"
                self.tail[2] = (self.tail[2] + 1) % self.depth(2)
                self.count[2] -= 1

    def depth(self, fifo):
        """Objects of a FIFO (FSIZE)."""
        return (self.memory[FIFOCON[fifo] + 3] & 0x1F) + 1

    def payload(self, fifo):
        """Data bytes of an object (PLSIZE)."""
        return (8, 12, 16, 20, 24, 32, 48, 64)[self.memory[FIFOCON[fifo] + 3] >> 5]

    def address(self, fifo, index):
        """Where an object lies: FIFO 1 from the start of RAM, as neither event FIFO nor queue is there."""
        assert self.memory[C1CON + 2] & 0x18 == 0, "TXQEN and STEF take RAM of their own"
        base = 0 if fifo == 1 else self.depth(1) * (8 + self.payload(1))
        at = base + index * (8 + self.payload(fifo))
        assert at + 8 + self.payload(fifo) <= 2048, "the FIFOs do not fit into 2 KB of RAM"
        return at

    def _update(self):
        memory = self.memory
        if self.mode == 4:
            # User addresses are valid outside configuration mode only (C1FIFOUAm).
            return
        for fifo in (1, 2):
            full = self.count[fifo] == self.depth(fifo)
            keep = memory[FIFOSTA[fifo]] & 0x08
            if fifo == 1:
                memory[FIFOSTA[1]] = keep | (0 if full else 1) | (0 if self.count[1] else 4)
                memory[FIFOSTA[1] + 1] = self.tail[1]
                self.set32(FIFOUA[1], self.address(1, self.head[1]))
            else:
                memory[FIFOSTA[2]] = keep | (1 if self.count[2] else 0) | (4 if full else 0)
                memory[FIFOSTA[2] + 1] = self.head[2]
                self.set32(FIFOUA[2], self.address(2, self.tail[2]))

    # -- the bus -------------------------------------------------------------------------------------------------------

    def _accepts(self, ident, extended):
        word = ident >> 18 | (ident & 0x3FFFF) << 11 | 1 << 30 if extended else ident
        for number in range(32):
            control = self.memory[C1FLTCON + number]
            if control & 0x80:
                assert control & 0x1F == 2
                code = self.get32(C1FLTOBJ + 8 * number)
                mask = self.get32(C1FLTOBJ + 8 * number + 4)
                if not (word ^ code) & mask:
                    return True
        return False

    def arrive(self, ident, data=b"", extended=True, remote=False, fd=False):
        """A good frame on the bus; whether it was taken."""
        if self.mode not in (0, 6) or not self._accepts(ident, extended):
            return False
        assert not fd or self.mode == 0, "a CAN FD frame is an error to a classic controller"
        if self.count[2] == self.depth(2):
            self.lost += 1
            self.memory[FIFOSTA[2]] |= 0x08
            return False
        size = data if remote else len(data)
        at = RAM + self.address(2, self.head[2])
        self.set32(at, ident >> 18 | (ident & 0x3FFFF) << 11 if extended else ident)
        flags = LENGTHS.index(size) | extended << 4 | remote << 5 | (0xC0 if fd else 0)
        self.set32(at + 4, flags)
        if not remote:
            assert size <= self.payload(2)
            self.memory[at + 8 : at + 8 + size] = data
        self.head[2] = (self.head[2] + 1) % self.depth(2)
        self.count[2] += 1
        self._update()
        return True

    def leave(self):
        """The frame the chip sends next: (ID, extended, remote, fd, switch, data), or None."""
        if self.mode not in (0, 6) or not self.count[1] or self.memory[C1TREC + 2] & 0x20:
            return None
        assert self.memory[FIFOCON[1]] & 0x80 and self.memory[FIFOCON[1] + 2] & 0x60
        at = RAM + self.address(1, self.tail[1])
        word, flags = self.get32(at), self.get32(at + 4)
        self.tail[1] = (self.tail[1] + 1) % self.depth(1)
        self.count[1] -= 1
        self._update()
        extended = flags & 0x10 != 0
        ident = (word & 0x7FF) << 18 | word >> 11 if extended else word
        size = LENGTHS[flags & 0x0F]
        fd = flags & 0x80 != 0
        assert not fd or self.mode == 0
        remote = flags & 0x20 != 0
        data = size if remote else bytes(self.memory[at + 8 : at + 8 + size])
        return ident, extended, remote, fd, flags & 0x40 != 0, data

    def errors(self, tec, rec):
        """Set the error counters; C1TREC follows."""
        flags = 0x20 if tec > 255 else 0
        flags |= (0x10 if tec > 127 else 0) | (0x08 if rec > 127 else 0)
        flags |= (0x04 if tec >= 96 else 0) | (0x02 if rec >= 96 else 0) | (0x01 if tec >= 96 or rec >= 96 else 0)
        self.memory[C1TREC : C1TREC + 3] = bytes((rec, min(tec, 255), flags))
