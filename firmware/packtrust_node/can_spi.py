"""SPI for the chips behind it: `exchange(out, into)` is one transaction, chip select low from its start to its end.

The buffers are as long as each other; both are the caller's, nothing is allocated. A driver gets one of these, so that
it runs on MicroPython and on CircuitPython.
"""


class MachineSpi:
    """`machine.SPI` and the `machine.Pin` of chip select (an output)."""

    def __init__(self, spi, select) -> None:
        self._transfer = spi.write_readinto
        self._select = select
        select(1)

    def exchange(self, out, into) -> None:
        """Write `out` and read `into`, in one transaction."""
        self._select(0)
        self._transfer(out, into)
        self._select(1)


class BusioSpi:
    """CircuitPython's `busio.SPI` and the `digitalio.DigitalInOut` of chip select; takes the bus for good."""

    def __init__(self, spi, select, baudrate: int = 8000000) -> None:
        select.switch_to_output(True)
        if not spi.try_lock():
            raise RuntimeError("the SPI bus is in use: give the CAN chip a bus of its own")
        spi.configure(baudrate=baudrate, polarity=0, phase=0)
        self._transfer = spi.write_readinto
        self._select = select

    def exchange(self, out, into) -> None:
        """Write `out` and read `into`, in one transaction."""
        self._select.value = False
        self._transfer(out, into)
        self._select.value = True


class Buffers:
    """One buffer out, one in, and views of their first bytes, made once: slicing allocates.

    sizes   the lengths of transaction the driver makes.
    """

    def __init__(self, sizes) -> None:
        longest = max(sizes)
        self.out = bytearray(longest)
        self.into = bytearray(longest)
        out = memoryview(self.out)
        into = memoryview(self.into)
        self.views = {}
        for size in sizes:
            self.views[size] = (out[:size], into[:size])
