"""Faults by request: each one selectable, counted, and repeatable from a seed.

Five kinds, kept apart because CAN treats them differently:

==========  ===================================================================================
disturb     a burst on the wire: the frame is destroyed for all, error frame, retransmission
loss        one receiver misses a good frame (its FIFO ran over); nobody else notices
repeat      one receiver gets a good frame twice (its sender repeated it: error in the last bit)
delay       one receiver gets a good frame late; frames behind it may overtake
corrupt     bits change and the CRC does not tell: one receiver gets other data
==========  ===================================================================================

``disturb`` is asked once a transmission; the others once for each receiver of each frame.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from packtrust.frame import Frame

KINDS = ("disturb", "loss", "repeat", "delay", "corrupt")
_FIELDS: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "sender": (str, type(None)),
    "receiver": (str, type(None)),
    "code": (int,),
    "mask": (int,),
    "extended": (bool, type(None)),
    "probability": (int, float),
    "skip": (int,),
    "count": (int, type(None)),
    "after_ns": (int,),
    "until_ns": (int, type(None)),
    "delay_ns": (int,),
    "bits": (list, type(None)),
    "flips": (int,),
    "at_bit": (int, type(None)),
}

Predicate = Callable[[Frame, str, str | None], bool]


class Fault:
    """One fault; all of its conditions must hold.

    kind             one of ``KINDS``.
    sender, receiver name of the node that sends / receives; None: any.  ``disturb`` hits the wire
                     and has no receiver.
    code, mask       frames whose ID agrees with code where mask bits are 1; mask 0: all.
    extended         only 29-bit (True) or 11-bit (False) frames; None: both.
    probability      0..1, drawn from the fault's own generator.
    skip             this many frames that would be hit go unharmed first.
    count            ends after this many hits; None: never.
    after_ns, until_ns   bus time window, until exclusive; None: no end.
    delay_ns         for ``delay``, and between the two copies of ``repeat``.
    bits             for ``corrupt``: data bits to flip, 0 the most significant bit of byte 0;
                     None: ``flips`` random different ones.
    at_bit           for ``disturb``: which bit of the frame (SOF is 0); None: a random one.
    predicate        further condition ``(frame, sender, receiver) -> bool``; only inside a process.
    """

    def __init__(
        self,
        kind: str,
        *,
        sender: str | None = None,
        receiver: str | None = None,
        code: int = 0,
        mask: int = 0,
        extended: bool | None = None,
        probability: float = 1.0,
        skip: int = 0,
        count: int | None = None,
        after_ns: int = 0,
        until_ns: int | None = None,
        delay_ns: int = 0,
        bits: list[int] | None = None,
        flips: int = 1,
        at_bit: int | None = None,
        predicate: Predicate | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError("no fault of kind {!r}: take one of {}".format(kind, ", ".join(KINDS)))
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability lies in 0..1, not {probability!r}")
        if kind == "disturb" and receiver is not None:
            raise ValueError("a disturbance hits all nodes: leave out receiver, or use loss")
        if kind == "delay" and delay_ns <= 0:
            raise ValueError("delay needs delay_ns > 0")
        if delay_ns < 0 or skip < 0 or flips < 1 or (count is not None and count < 0):
            raise ValueError("delay_ns, skip and count are not negative, flips is at least 1")
        if bits is not None and not all(0 <= bit < 512 for bit in bits):
            raise ValueError("bits are numbers in 0..511")
        self.kind = kind
        self.sender = sender
        self.receiver = receiver
        self.code = code
        self.mask = mask
        self.extended = extended
        self.probability = probability
        self.skip = skip
        self.count = count
        self.after_ns = after_ns
        self.until_ns = until_ns
        self.delay_ns = delay_ns
        self.bits = bits
        self.flips = flips
        self.at_bit = at_bit
        self.predicate = predicate
        self.ident = 0
        self.hits = 0
        self._skipped = 0
        self._random = random.Random(0)

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Fault:
        """A fault from its JSON description; ValueError tells which field is wrong."""
        for key, value in description.items():
            if key not in _FIELDS:
                raise ValueError("a fault has no field {!r}: known are {}".format(key, ", ".join(sorted(_FIELDS))))
            allowed = _FIELDS[key]
            if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
                raise ValueError(f"fault field {key!r} cannot be {value!r}")
        if not all(type(bit) is int for bit in description.get("bits") or ()):
            raise ValueError("fault field 'bits' is a list of numbers")
        if "kind" not in description:
            raise ValueError("a fault needs a kind: one of {}".format(", ".join(KINDS)))
        return cls(**description)

    def to_dict(self) -> dict[str, Any]:
        """JSON description with ``id`` and ``hits``."""
        fields = {key: getattr(self, key) for key in _FIELDS}
        return {"id": self.ident, "hits": self.hits, **fields}

    @property
    def spent(self) -> bool:
        """All hits used up."""
        return self.count is not None and self.hits >= self.count

    def strikes(self, frame: Frame, sender: str, receiver: str | None, time_ns: int) -> bool:
        """Whether this frame is hit; uses up ``skip``, ``count`` and a random number."""
        if (
            self.spent
            or (self.sender is not None and self.sender != sender)
            or (self.receiver is not None and self.receiver != receiver)
            or (frame.arbitration_id ^ self.code) & self.mask
            or (self.extended is not None and self.extended != frame.is_extended_id)
            or time_ns < self.after_ns
            or (self.until_ns is not None and time_ns >= self.until_ns)
            or (self.predicate is not None and not self.predicate(frame, sender, receiver))
        ):
            return False
        if self.probability < 1 and self._random.random() >= self.probability:
            return False
        if self._skipped < self.skip:
            self._skipped += 1
            return False
        self.hits += 1
        return True

    def flip(self, frame: Frame) -> Frame:
        """The frame with its bits changed; one without data stays as it is."""
        data = bytearray(frame.data)
        total = 8 * len(data)
        if self.bits is not None:
            chosen = [bit for bit in self.bits if bit < total]
        else:
            chosen = self._random.sample(range(total), min(self.flips, total))
        for bit in chosen:
            data[bit // 8] ^= 0x80 >> bit % 8
        return Frame(
            frame.arbitration_id,
            bytes(data),
            frame.is_extended_id,
            frame.is_fd,
            frame.is_remote_frame,
            frame.bitrate_switch,
            frame.dlc,
        )


class FaultSet:
    """The faults of one bus.

    seed   with the number a fault gets on :meth:`add` it seeds that fault's own generator, so
           faults do not change each other's luck and the same requests give the same run.
    """

    def __init__(self, seed: int | str = 0) -> None:
        self._seed = seed
        self._next = 1
        self._faults: dict[int, Fault] = {}
        self._wire: list[Fault] = []
        self._receivers: list[Fault] = []
        self.active = False

    def add(self, fault: Fault | Mapping[str, Any]) -> int:
        """Take up a fault or its JSON description; the number to remove it by."""
        if not isinstance(fault, Fault):
            fault = Fault.from_dict(fault)
        fault.ident = self._next
        fault._random = random.Random("%s/%d" % (self._seed, fault.ident))
        self._next += 1
        self._faults[fault.ident] = fault
        self._sort()
        return fault.ident

    def remove(self, ident: int) -> Fault:
        """Take a fault out; KeyError if there is none of that number."""
        if ident not in self._faults:
            raise KeyError(f"no fault number {ident!r}")
        fault = self._faults.pop(ident)
        self._sort()
        return fault

    def clear(self) -> None:
        """Take all out."""
        self._faults.clear()
        self._sort()

    def get(self, ident: int) -> Fault:
        """The fault of that number, with its count of hits."""
        return self._faults[ident]

    def describe(self) -> list[dict[str, Any]]:
        """All faults, spent ones too, as JSON-able dicts."""
        return [fault.to_dict() for fault in self._faults.values()]

    def _sort(self) -> None:
        self._wire = [fault for fault in self._faults.values() if fault.kind == "disturb"]
        self._receivers = [fault for fault in self._faults.values() if fault.kind != "disturb"]
        self.active = bool(self._receivers)

    def disturb(self, frame: Frame, sender: str, time_ns: int, length: int) -> int | None:
        """The bit (0 is SOF) at which this transmission is destroyed, or None."""
        for fault in self._wire:
            if fault.strikes(frame, sender, None, time_ns):
                if fault.at_bit is not None:
                    return min(max(fault.at_bit, 1), length - 1)
                return fault._random.randrange(1, length)
        return None

    def receive(self, frame: Frame, sender: str, receiver: str, time_ns: int) -> list[tuple[Frame, int]]:
        """What this receiver gets of a good frame: (frame, delay in ns), in order; [] is a loss."""
        seen = [(frame, 0)]
        for fault in self._receivers:
            if not fault.strikes(frame, sender, receiver, time_ns):
                continue
            if fault.kind == "loss":
                return []
            if fault.kind == "repeat":
                seen += [(item, delay + fault.delay_ns) for item, delay in seen]
            elif fault.kind == "delay":
                seen = [(item, delay + fault.delay_ns) for item, delay in seen]
            else:
                seen = [(fault.flip(item), delay) for item, delay in seen]
        return seen
