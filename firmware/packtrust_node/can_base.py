"""What the drivers of real CAN controllers share: names of states, what a port lets in, and how bus-off is left.

The interface is the one `can_slcan` describes, and two more names:

    filters(accept)   (base, mask) pairs over bits 28..18 of 29-bit IDs, mask bits 1 compare; None: all
    fd                True if `send` takes CAN FD frames; they leave as one FD frame, with the bit rate switch
                      where the controller can

A frame that `recv` gave is the driver's own: it is valid until the next `recv`.
"""

from packtrust._compat import const
from packtrust.frame import Frame

OPENING = "opening"
ACTIVE = "active"
WARNING = "warning"
PASSIVE = "passive"
BUS_OFF = "bus-off"

# Bus-off is left after this time: 128 times 11 bits (ISO 11898-1) are long over at any bit rate a pack uses.
BUS_OFF_MS = const(200)

_ID_MASK = const(0x1FFFFFFF)


class Accept:
    """What a port lets in: 29-bit IDs by base and by node byte; everything, 11-bit IDs too, as long as neither is set.

    pairs   (ID, mask) of 29 bits each, mask bits 1 compare; what the filters of a controller are made from.
    """

    def __init__(self) -> None:
        self.pairs = []  # type: list[tuple[int, int]]
        self._bases = ()  # type: tuple[tuple[int, int], ...]
        self._nodes = ()  # type: tuple[int, ...]

    def set_bases(self, accept) -> bool:
        """(base, mask) pairs over bits 28..18, None or empty: all; whether that changed anything."""
        bases = tuple(accept or ())
        if bases == self._bases:
            return False
        self._bases = bases
        self._build()
        return True

    def set_nodes(self, nodes) -> bool:
        """Node bytes (bits 7..0), None or empty: all; whether that changed anything."""
        nodes = tuple(nodes or ())
        if nodes == self._nodes:
            return False
        self._nodes = nodes
        self._build()
        return True

    def _build(self) -> None:
        pairs = []
        if self._bases or self._nodes:
            for base, base_mask in self._bases or ((0, 0),):
                for node in self._nodes or (None,):
                    code = (base & base_mask) << 18
                    mask = base_mask << 18
                    if node is not None:
                        code |= node
                        mask |= 0xFF
                    if (code, mask) not in pairs:
                        pairs.append((code, mask))
        self.pairs = pairs

    def takes(self, ident: int, extended: bool) -> bool:
        """Whether this ID is let in. Allocates nothing: it is asked for every frame."""
        if not self.pairs:
            return True
        if not extended:
            return False
        for code, mask in self.pairs:
            if ident & mask == code:
                return True
        return False


def joined(pairs: "list[tuple[int, int]]") -> "list[tuple[int, int]]":
    """One pair fewer: the two that have most in common become one that lets through both, and somewhat more."""
    best = None
    for first in range(len(pairs)):
        for second in range(first):
            mask = pairs[first][1] & pairs[second][1] & (_ID_MASK ^ pairs[first][0] ^ pairs[second][0])
            bits = bin(mask).count("1")
            if best is None or bits > best[0]:
                best = (bits, mask, pairs[first][0] & mask)
    if best is None:
        raise ValueError("there is nothing to join in %d filters" % len(pairs))
    _, mask, code = best
    # Whatever the new one covers needs no filter of its own.
    kept = [pair for pair in pairs if pair[1] & mask != mask or pair[0] & mask != code]
    kept.append((code, mask))
    return kept


def fitted(pairs: "list[tuple[int, int]]", limit: int) -> "list[tuple[int, int]]":
    """At most `limit` pairs (at least 1) that let through all that `pairs` do."""
    while len(pairs) > limit:
        pairs = joined(pairs)
    return pairs


class CanPort:
    """The part of a driver that is the same for all of them.

    A driver has `_apply_filters()`, which gives `self._accept.pairs` to its controller, as closely as that can have
    them; `recv` then asks `self._accept.takes` and drops the rest, counted as "filtered".

    counters   sent, received, refused (frames the controller can never send), filtered, lost (received frames that
               the controller or the driver had no room for: at least so many), bus_off, opened, tec, rec.
    fault      why the controller does not work, with what to check; "" while it does.

    No driver has a property: with one MicroPython looks through its classes for each attribute that is set.
    """

    stream = None
    orders_by_id = False
    fd = False

    def __init__(self) -> None:
        self.state = OPENING
        self.fault = ""
        self.counters = {
            "sent": 0,
            "received": 0,
            "refused": 0,
            "filtered": 0,
            "lost": 0,
            "bus_off": 0,
            "opened": 0,
            "tec": 0,
            "rec": 0,
        }
        self._accept = Accept()
        self._is_exact = False  # the controller lets in no more than `_accept` does
        self._frame = Frame(0, b"")
        self._bus_off_ms = None  # type: int | None

    def filters(self, accept) -> None:
        """Let in only 29-bit IDs with one of these (base, mask) pairs over bits 28..18; None: all."""
        if self._accept.set_bases(accept):
            self._apply_filters()

    def accept_nodes(self, nodes) -> None:
        """Let in only 29-bit IDs with one of these node bytes; None: all."""
        if self._accept.set_nodes(nodes):
            self._apply_filters()

    def _apply_filters(self) -> None:
        raise NotImplementedError

    def recover(self) -> None:
        """Leave bus-off: what is in the controller is dropped."""
        raise NotImplementedError

    def _enter(self, state: str) -> None:
        if state == BUS_OFF:
            if self.state != BUS_OFF:
                self.counters["bus_off"] += 1
        else:
            self._bus_off_ms = None
        self.state = state

    def _wait_in_bus_off(self, now_ms: int) -> None:
        """Called as long as the controller is in bus-off: recovers when that has lasted."""
        if self._bus_off_ms is None:
            self._bus_off_ms = now_ms
        elif now_ms - self._bus_off_ms >= BUS_OFF_MS:
            self._bus_off_ms = None
            self.recover()

    # A frame comes in by these two. With all it needs one call had so much state that it took heap for each frame
    # (tests/on_target/test_call_frames.py).

    def _let_in(self, ident: int, extended: bool):
        """The frame, with its ID; None if the filters in the controller were wider than what was asked for."""
        if not self._is_exact and not self._accept.takes(ident, extended):
            self.counters["filtered"] += 1
            return None
        self.counters["received"] += 1
        frame = self._frame
        frame.arbitration_id = ident
        frame.is_extended_id = extended
        return frame

    def _complete(self, frame, data, size: int, remote: bool = False, fd: bool = False) -> None:
        """The rest of the frame."""
        frame.data = b"" if remote else data
        frame.dlc = size
        frame.is_remote_frame = remote
        frame.is_fd = fd
        frame.bitrate_switch = fd
