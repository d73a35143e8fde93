"""How much of each epoch is used up: its records, both directions and all sessions together, and its age.

Counted in RAM and stored seldom: after a power cycle an epoch counts as having used, since it was stored last, all it
may use until it is stored again, once for each boot since then. So it is never counted too low, and no boot costs a
write. Age is time with power: there is no clock that runs without.
"""

from array import array
from struct import pack, unpack_from

from packtrust._compat import const
from packtrust.errors import StorageError
from packtrust.provision import ROLE_PACK
from packtrust_node.relation import MAX_AGE_S_AT, MAX_RECORDS_AT
from packtrust_node.store import newer_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust_node.node import Node
    from packtrust_node.relation import Relation, Terms

RECORD = "usage"

# An epoch is replaced when so many eighths of it are used: while an app is there by the app, else, or if the app does
# not, by the pack. With all eight no more records are sealed.
DUE = const(6)
OVERDUE = const(7)
USED_UP = const(8)
# The app rotates, unless nothing authentic of it has come for so long.
APP_GONE_MS = const(5000)

LOOK_MS = const(1000)
SAVE_S = const(3600)
# A store happens when the records of all epochs since the last one reach this part of what the smallest one may have.
_SHARE_BITS = const(6)
_SHARE_SMALL = const(8192)  # but not every few records where an owner allows an epoch few

_VERSION = const(1)
_HEAD_LENGTH = const(5)  # version, boot counter
_ENTRY_LENGTH = const(20)  # lct_tag, epoch, records, age
_MOST = const(0x3FFFFFFF)

# Figures of a link, three after one another.
_AGE_S = const(1)
_SEEN = const(2)  # of the channel's count, when it was looked at last
_FIGURES = const(3)


def share(max_records: int) -> int:
    """Records of an epoch that may go uncounted by a power cycle, and are counted for it."""
    return max(1, max_records >> _SHARE_BITS, min(_SHARE_SMALL, max_records >> 3))


class Usage:
    """Of the relations of one node. `tick` often; `begin` with each new epoch."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._figures = array("I", b"")
        self._looked_ms = -1  # before the first look nothing is loaded
        self._save_s = 0  # when, in seconds from now
        self._unsaved = 0
        self._kept = False  # what newer firmware has stored: nothing is stored over it

    def _at(self, relation: "Terms | Relation") -> int:
        """Where its figures are: the node's own link first, the modules by number."""
        node = relation.node
        at = 0 if node == self._node.own_node else _FIGURES * (node & 31)
        while len(self._figures) < at + _FIGURES:
            self._figures.append(0)
        return at

    def records(self, relation: "Terms | Relation") -> int:
        """Records of its epoch so far."""
        return self._figures[self._at(relation)]

    def age_s(self, relation: "Terms | Relation") -> int:
        """Seconds with power since its epoch began."""
        return self._figures[self._at(relation) + _AGE_S]

    def used(self, relation: "Terms", eighths: int) -> bool:
        """Whether so much of its epoch is used, by either limit; all of it by the records alone."""
        if self.records(relation) >= (relation.term(MAX_RECORDS_AT) * eighths) >> 3:
            return True
        return eighths < USED_UP and self.age_s(relation) >= (relation.term(MAX_AGE_S_AT) * eighths) >> 3

    def limit(self, now_ms: int) -> int:
        """From how many eighths on a pack must replace an epoch itself: an app that is there is given time to do it."""
        app = self._node.neighbour(self._node.own_node)
        there = app is not None and app.established and now_ms - (app.heard_ms or 0) < APP_GONE_MS
        return OVERDUE if there else DUE

    def is_due(self, now_ms: int) -> bool:
        """Whether a pack must replace an epoch with a module itself."""
        node = self._node
        if node.device_role != ROLE_PACK:
            return False
        limit = self.limit(now_ms)
        for relation in node.relations.values():
            if relation.node != node.own_node and self.used(relation, limit):
                return True
        return False

    def begin(self, relation: "Terms | Relation") -> None:
        """A new epoch is in force."""
        at = self._at(relation)
        self._figures[at] = self._figures[at + _AGE_S] = 0
        self._save_s = 0
        neighbour = self._node.neighbour(relation.node)
        if neighbour is not None and neighbour.used_up:
            neighbour.used_up = False

    def forget(self) -> None:
        """There are no relations any more."""
        self._figures = array("I", b"")
        self._node.env.store.remove(RECORD)
        self._kept = False

    def tick(self, now_ms: int) -> bool:
        """Call often: counts, and stores now and then. True when it has counted."""
        if self._looked_ms < 0:
            self._looked_ms = now_ms
            self._load()
        seconds = (now_ms - self._looked_ms) // LOOK_MS
        if seconds <= 0:
            return False
        self._looked_ms += seconds * LOOK_MS
        figures = self._figures
        smallest = _MOST
        for relation in self._node.relations.values():
            neighbour = self._node.neighbour(relation.node)
            if neighbour is None or not neighbour.keyed:
                continue
            at = self._at(relation)
            opened, sealed = neighbour.records
            count = opened + sealed
            new = count - figures[at + _SEEN]
            if new < 0:
                new = count  # another channel
            figures[at + _SEEN] = count
            figures[at] = min(_MOST, figures[at] + new)
            figures[at + _AGE_S] += seconds
            self._unsaved += new
            smallest = min(smallest, share(relation.term(MAX_RECORDS_AT)))
            if figures[at] >= relation.term(MAX_RECORDS_AT) and not neighbour.used_up:
                neighbour.used_up = True
                self._node.count("epoch-used-up")
        self._save_s -= seconds
        if self._node.relations and (self._save_s <= 0 or self._unsaved >= smallest):
            self._save()
        return True

    def _save(self) -> None:
        node = self._node
        self._save_s = SAVE_S
        self._unsaved = 0
        if self._kept:
            return
        out = bytearray(pack(">BI", _VERSION, node.boot_counter))
        for relation in node.relations.values():
            out.extend(relation.tag)
            out.extend(pack(">III", relation.epoch, self.records(relation), self.age_s(relation)))
        try:
            node.env.store.write(RECORD, out)
        except StorageError as error:
            node.count("storage")
            node.env.log("storage: %s" % error)

    def _load(self) -> None:
        node = self._node
        try:
            raw = node.env.store.read(RECORD)
            if raw and raw[0] > _VERSION:
                # Nobody knows how much is used: as if it were all, so only a rotation goes on.
                self._kept = True
                for relation in node.relations.values():
                    self._figures[self._at(relation)] = _MOST
                raise newer_error("record " + RECORD, raw[0])
        except StorageError as error:
            node.count("storage")
            node.env.log("storage: %s" % error)
            raw = None
        if raw is None or len(raw) < _HEAD_LENGTH or raw[0] != _VERSION:
            return  # and the first look stores
        self._save_s = SAVE_S
        boots = (node.boot_counter - unpack_from(">I", raw, 1)[0]) & 0xFFFF
        for relation in node.relations.values():
            at = self._at(relation)
            records = boots * share(relation.term(MAX_RECORDS_AT))
            age_s = boots * SAVE_S
            entry = _HEAD_LENGTH
            while entry + _ENTRY_LENGTH <= len(raw):
                if bytes(raw[entry : entry + 8]) == relation.tag:
                    epoch, stored, stored_s = unpack_from(">III", raw, entry + 8)
                    if epoch == relation.epoch:
                        records += stored
                        age_s += stored_s
                entry += _ENTRY_LENGTH
            self._figures[at] = min(_MOST, records)
            self._figures[at + _AGE_S] = min(_MOST, age_s)
