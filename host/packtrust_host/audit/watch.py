"""What an app notes by itself while it speaks to a pack: records per interval, refused ones by reason, signs.

The pack's own signs come in BUS_INTERFERENCE, sealed; the app's are frames with IDs that only it sends.
"""

from typing import Any

from packtrust import audit
from packtrust_host.app.errors import AppError
from packtrust_host.app.node import AppNode
from packtrust_host.audit.log import AuditLogs, name_of

INTERVAL_MS = 3_600_000
_RECORDS_MS = 1000
_OWN_ID = "own-id"


class Watch:
    """Notes for one AppNode, in the log of the pack it speaks to: `node.watch = Watch(...)`; `close()` at the end.

    records   also every record sealed and opened, by itself
    """

    def __init__(
        self, node: AppNode, logs: AuditLogs, *, interval_ms: int = INTERVAL_MS, records: bool = False
    ) -> None:
        self.failed = ""  # why nothing could be noted, if so
        self._node = node
        self._logs = logs
        self._interval_ms = interval_ms
        self._since_ms = node.env.now_ms()
        self._flushed_ms = self._since_ms
        self._booked: dict[str, int] = {}
        self._signs: dict[int, int] = {}
        self._own_id = False
        self._records: list[dict[str, Any]] | None = [] if records else None

    @property
    def notes_records(self) -> bool:
        """Whether each record is noted."""
        return self._records is not None

    def record(self, sealed: bool, base: int, counter: int) -> None:
        """A record was sealed or opened."""
        if self._records is not None:
            entry = {"what": "record", "sealed": sealed, "base": "0x%03x" % base, "counter": counter}
            self._records.append(entry)

    def tick(self, now_ms: int) -> None:
        """Note what is due."""
        self._check_signs()
        if self._records and now_ms - self._flushed_ms >= _RECORDS_MS:
            self._flush_records(now_ms)
        if now_ms - self._since_ms >= self._interval_ms:
            self._book(now_ms)

    def note(self, what: str, **details: Any) -> None:
        """Note at once what is about to be done, or how it ended. Raises AuditError."""
        self._logs.append(self._name, [{"what": what, **details}])

    def close(self) -> None:
        """Note the rest."""
        now_ms = self._node.env.now_ms()
        if self._records:
            self._flush_records(now_ms)
        self._book(now_ms)

    @property
    def _name(self) -> str:
        record = None if self._node.pack_number is None else self._node.store.app_pack(node=self._node.node)
        return name_of(None if record is None else record.unique_id_b)

    def _write(self, entries: list[dict[str, Any]], each: bool = True) -> None:
        try:
            self._logs.append(self._name, entries, each)
        except AppError as error:
            if not self.failed:
                self._node.env.log("audit: %s" % error)
            self.failed = str(error)

    def _flush_records(self, now_ms: int) -> None:
        assert self._records is not None
        entries, self._records = self._records, []
        self._flushed_ms = now_ms
        self._write(entries, False)

    def _check_signs(self) -> None:
        entries: list[dict[str, Any]] = []
        for number, told in self._node.model.interference.items():
            new = told["signs"] & ~self._signs.get(number, 0)
            self._signs[number] = told["signs"]
            if new:
                entries.append(
                    {"what": "signs", "module": number, "signs": audit.sign_names(new), "score": told["score"]}
                )
        if not self._own_id and self._node.counters.get(_OWN_ID):
            self._own_id = True
            entries.append({"what": "signs", "app": True, "signs": [_OWN_ID], "score": 0})
        if entries:
            self._write(entries)

    def _book(self, now_ms: int) -> None:
        channel = self._node.channel
        now = {} if channel is None else dict(channel.stats)
        own = self._node.counters
        now.update({name: own[name] for name in ("clear-commands", _OWN_ID) if name in own})
        more = {name: count - self._booked.get(name, 0) for name, count in now.items()}
        refused = {
            name: count for name, count in more.items() if count > 0 and name not in ("sealed", "opened", "established")
        }
        entry = {
            "what": "counts",
            "seconds": (now_ms - self._since_ms) // 1000,
            "sealed": max(0, more.get("sealed", 0)),
            "opened": max(0, more.get("opened", 0)),
            "refused": refused,
        }
        self._since_ms = now_ms
        self._booked = now
        if entry["sealed"] or entry["opened"] or refused:
            self._write([entry])
