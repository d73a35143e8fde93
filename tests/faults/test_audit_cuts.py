"""Power cuts while the audit log is written: no entry is lost, none is doubled, and the log goes on."""

from typing import Any

from packtrust_node import audit_log
from packtrust_node.store import MemorySlots
from unit.core.test_node_audit import PACK_NODE, fill, owned


class Cut(Exception):
    """The power is gone."""


class Slots(MemorySlots):
    """Flash that loses power at the write or removal after `left` others; the write is torn in its middle."""

    left = -1

    def write(self, name: str, data: bytes) -> None:
        self._spend(name, bytes(data[: len(data) // 2]))
        MemorySlots.write(self, name, data)

    def remove(self, name: str) -> None:
        self._spend(name, None)
        MemorySlots.remove(self, name)

    def _spend(self, name: str, torn: bytes | None) -> None:
        if self.left == 0:
            if torn is not None:
                MemorySlots.write(self, name, torn)
            raise Cut
        self.left -= 1


def test_a_cut_at_any_write_loses_no_entry_that_was_there() -> None:
    bench, owner = owned(0)
    pack: Any = bench.nodes["pack"]
    fill(pack, 12)
    files = pack.env.store._slots.files
    cuts = 0
    for left in range(60):
        slots = Slots()
        slots.files = dict(files)
        bench.off("pack")
        pack = bench.boot("pack", slots)
        bench.run(200)
        written = audit_log._load(pack).following
        slots.left = left
        try:
            for _ in range(18):
                fill(pack, 1)
                written += 1
        except Cut:
            cuts += 1
        slots.left = -1
        bench.off("pack")
        pack = bench.boot("pack", slots)
        bench.run(200)
        entries, part = owner.log(PACK_NODE)
        assert part.following in (written, written + 1), (left, part.following, written)
        assert [entry.number for entry in entries] == list(range(part.following))
        fill(pack, 1)
        assert owner.log(PACK_NODE)[1].following == part.following + 1
    assert cuts > 30, "of 18 entries and two blocks; more cuts than writes is no more than all"
