"""Watches what a node refuses: signs of tampering, latched, and a score of how much the bus is disturbed.

All it looks at are the node's counters, once a second: so what nobody forges costs nothing, and what a flood forges
costs one count each and one look at the sum. Nothing here wipes a key, opens a contactor or judges a peer: what comes
from the bus unauthenticated may be anybody's.
"""

from packtrust._compat import const
from packtrust.errors import PacktrustError, StorageError
from packtrust.messages.compact import encode
from packtrust_node import ondemand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust_node.node import Node

SCORE_MAX = const(100)
_TICK_MS = const(1000)  # the score leaks one a tick
_REPEAT_MS = const(10000)
COUNTS_MS = const(21600000)
COUNTS_MAX_MS = const(86400000)
_SOFT_SCORE = const(20)

# By counter: what each adds to the score, the sign it raises (by number, packtrust.audit; 0: none), and whether it does
# so at once or only when the score says that it is no accident.
_RULES = (
    " own-id=10,1,! tag=10,2,! handshake-mac=5,3,? handshake-role=5,3,? pairing=5,3,? store-auth=0,4,! "
    "group-tag=10,2,! group-replay=3,0,? group-unknown=1,0,? store-lost=0,4,! store-rollback=0,4,! "
    "store-factory=0,5,! factory=25,5,! twin=25,6,! number-taken=10,0,? not-owner=10,0,? replay=3,0,? old=3,0,? "
    "stale=1,0,? clear=2,0,? relay=2,0,? unknown-session=1,0,? handshake-malformed=1,0,? "
    "handshake-unexpected=1,0,? malformed=1,0,? "
)


class Guard:
    """The signs and the score of one node.

    score     0..100: a leaky bucket
    signs     bits, see packtrust.audit: latched until the owner clears them, also over a reboot
    entries   number of the next entry of the audit log
    """

    def __init__(self, node: "Node") -> None:
        self._node = node
        self.score = 0
        self.signs = 0
        self.entries = 0
        self._due_ms = 0
        self._seen = {}  # type: dict[str, int]  # the counters at the last look
        self._told = 0
        self._told_ms = 0
        self._interval_ms = 0
        self._booked_ms = 0
        self._booked = {}  # type: dict[str, int]  # the counters at the last entry `counts`, and records

    def start(self) -> None:
        """Read what is latched."""
        node = self._node
        self._booked_ms = self._due_ms = node.env.now_ms()
        self.collected()
        before = ondemand.mark()
        try:
            from packtrust_node import audit_log

            self.signs, self.entries = audit_log.latched(node)
        except StorageError as error:
            self.failed(error)
        finally:
            ondemand.back_to(before)

    def clear(self) -> None:
        """The owner has seen the signs."""
        self.signs = 0

    def collected(self) -> None:
        """The owner has read the log: counts are noted as often as at first."""
        self._interval_ms = int(self._node.config.get("audit_interval_s", COUNTS_MS // 1000)) * 1000

    def failed(self, error: Exception) -> None:
        """The log cannot be read or written."""
        node = self._node
        if not node.counters.get("audit"):
            node.env.log("audit log: %s" % error)
        node.count("audit")

    def tick(self, now_ms: int) -> None:
        """Call every 10..1000 ms."""
        if now_ms - self._due_ms < 0:
            return
        self._due_ms = now_ms + _TICK_MS
        if self.score:
            self.score -= 1
        seen = self._seen
        changed = None
        for what, count in self._node.counters.items():
            if count != seen.get(what, 0):
                if changed is None:
                    changed = []
                changed.append(what)
        if changed is not None:
            self._look(changed)
        if now_ms - self._booked_ms >= self._interval_ms:
            self._book(now_ms)
        level = self.score // 10 | self.signs << 4
        if level != self._told or (level and now_ms - self._told_ms >= _REPEAT_MS):
            data = encode("INTERFERENCE", module_id=0, score=self.score, signs=self.signs, entries=self.entries)
            if self._node.tell(data):
                self._told = level
                self._told_ms = now_ms

    def _look(self, changed: "list[str]") -> None:
        """Counters that have changed: score them, latch what they are a sign of."""
        counters = self._node.counters
        signs = 0
        soft = 0
        for what in changed:
            more = counters[what] - self._seen.get(what, 0)
            self._seen[what] = counters[what]
            rule = _rule(what)
            if rule is None:
                continue
            self.score = min(SCORE_MAX, self.score + min(more, SCORE_MAX) * rule[0])
            bit = 1 << rule[1] >> 1
            if rule[2]:
                signs |= bit
            else:
                soft |= bit
        if self.score >= _SOFT_SCORE:
            signs |= soft
        signs &= ~self.signs
        if signs:
            self._latch(signs)

    def _latch(self, signs: int) -> None:
        """New signs: an entry each, at once. A sign that stays costs no other entry, however often it is seen."""
        node = self._node
        self.signs |= signs
        before = ondemand.mark()
        try:
            from packtrust import audit as words
            from packtrust_node import audit_log

            entries = []
            for number in range(1, 17):
                if signs >> number - 1 & 1:
                    entries.append(("sign", words.sign_body(number, self.score, self._times(number))))
                    node.env.log("sign of tampering: %s" % words.sign_name(number))
            audit_log.write(node, entries, self.signs)
        except PacktrustError as error:
            self.failed(error)
        finally:
            ondemand.back_to(before)

    def _times(self, number: int) -> int:
        """How often a sign was seen since this boot."""
        times = 0
        for what, count in self._node.counters.items():
            rule = _rule(what)
            if rule is not None and rule[1] == number:
                times += count
        return times

    def _book(self, now_ms: int) -> None:
        """The entry `counts`. The longer nobody reads the log, the rarer they are: so they do not push out the rest."""
        node = self._node
        sealed = opened = 0
        for link in node.links():
            records = link.records
            opened += records[0]
            sealed += records[1]
        before = ondemand.mark()
        try:
            self._write_counts(now_ms, sealed, opened)
        except PacktrustError as error:
            self.failed(error)
        finally:
            ondemand.back_to(before)

    def _write_counts(self, now_ms: int, sealed: int, opened: int) -> None:
        from packtrust import audit as words

        node = self._node
        booked = self._booked
        known = words.reasons()
        refused = []
        for what, count in node.counters.items():
            more = count - booked.get(what, 0)
            if more > 0 and what in known:
                refused.append((what, more))
        seconds = (now_ms - self._booked_ms) // 1000
        self._booked_ms = now_ms
        self._interval_ms = min(2 * self._interval_ms, COUNTS_MAX_MS)
        more_sealed = max(0, sealed - booked.get(" sealed", 0))
        more_opened = max(0, opened - booked.get(" opened", 0))
        if not refused and not more_sealed and not more_opened:
            return
        self._booked = dict(node.counters)
        self._booked[" sealed"] = sealed
        self._booked[" opened"] = opened
        entries = [("counts", words.counts_body(seconds, more_sealed, more_opened, refused))]
        drawn, key = node.group_key()
        more = drawn - booked.get(" group", 0)
        self._booked[" group"] = drawn
        if more > 0:
            # Not each by itself: who silences a module makes the pack draw another one.
            entries.append(("group-key", words.key_event(0, 0, more, key)))
        from packtrust_node import audit_log

        audit_log.write(node, entries)


def _rule(what: str) -> "tuple[int, int, bool] | None":
    """Weight, sign (0: none) and whether it is one at once, of a counter; None if it says nothing."""
    at = _RULES.find(" %s=" % what)
    if at < 0:
        return None
    rule = _RULES[at + len(what) + 2 : _RULES.find(" ", at + 1)].split(",")
    return int(rule[0]), int(rule[1]), rule[2] == "!"
