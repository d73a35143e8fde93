"""Epochs are replaced in time, by the app: what is due it gives new keys, one relationship after the other, with the
traffic running.

    rotator = Rotator(Provisioner(node))
    usages = runner.run(rotator.survey())          # how far each epoch is used
    runner.run(rotator.rotate(rotator.due()))
    rotator.keep()                                 # and from now on by itself

How far an epoch is used the devices count, both directions and all sessions together, and report under the owner key
(docs/wire.md, section 9). A pack without an app makes the epochs of its modules by itself; that is learned here too.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from packtrust import report
from packtrust_host.app.errors import AppError
from packtrust_host.app.keystore import ACTIVE, APP_PACK, Device, RelationshipRecord
from packtrust_host.app.provisioner import Provisioner
from packtrust_host.app.tasks import Step

EVERY_MS = 60_000


@dataclass(frozen=True)
class Usage:
    """How far the epoch of a relationship is used. `records` of both directions and all sessions,
    `age_s` in seconds with power; each of at most `max_records`, `max_age_s`.

    `due`: to be replaced (75 % of either); `used_up`: nothing is sealed under it any more;
    `made_here`: pack and module made it without an app; `behind`: the pack has an epoch with this app
    that the key store does not know (it comes from a backup), so a new one is due.
    """

    lct_id: str
    kind: str
    node: int
    epoch: int
    records: int
    max_records: int
    age_s: int
    max_age_s: int
    due: bool
    used_up: bool
    made_here: bool
    behind: bool

    @property
    def percent(self) -> float:
        """Of the limit that is nearer."""
        return 100 * max(self.records / self.max_records, self.age_s / self.max_age_s)


class Rotator:
    """Rotates the relationships of the pack a provisioner's node speaks to."""

    def __init__(self, provisioner: Provisioner) -> None:
        self.provisioner = provisioner
        self.usages: dict[str, Usage] = {}  # of the last survey, by LCT id
        self.rotated = 0
        self.failed = 0
        self._store = provisioner.store

    def _pack(self) -> Device:
        record = self._store.app_pack(node=self.provisioner.node.node)
        if record is None:
            raise AppError("the app has no LCT with this pack", "register and provision it first")
        return self._store.devices[record.unique_id_b]

    def _records(self, pack: Device) -> list[RelationshipRecord]:
        own = self._store.app_pack(pack.unique_id)
        return [*([] if own is None else [own]), *self._store.modules_of(pack.unique_id)]

    def survey(self) -> Generator[Step, Any, dict[str, Usage]]:
        """Ask the pack how far its epochs are used; by LCT id. Raises NoAnswer, DeviceRefused, ProofFailed."""
        pack = self._pack()
        reported = yield from self.provisioner.report(pack)
        found = {}
        for record in self._records(pack):
            entry = reported.entries.get(record.tag)
            if entry is None or record.state != ACTIVE:
                continue
            behind = record.kind == APP_PACK and entry.epoch != record.epoch
            found[record.lct_id] = Usage(
                record.lct_id,
                record.kind,
                record.node,
                entry.epoch,
                entry.records,
                entry.max_records,
                entry.age_s,
                entry.max_age_s,
                bool(entry.flags & report.DUE) or behind,
                bool(entry.flags & report.USED_UP),
                bool(entry.flags & report.MADE_HERE),
                behind,
            )
        self.usages = found
        return found

    def due(self) -> list[str]:
        """LCT ids of what the last survey found due, the app's own first."""
        return [usage.lct_id for usage in self.usages.values() if usage.due]

    def rotate(self, lct_ids: Iterable[str]) -> Generator[Step, Any, int]:
        """Give each of these relationships a new epoch; how many.

        Raises ProvisioningFailed at the first that fails: its old epoch goes on.
        """
        count = 0
        for lct_id in lct_ids:
            try:
                yield from self.provisioner.install(lct_id)
            except AppError:
                self.failed += 1
                raise
            count += 1
            self.rotated += 1
        return count

    def rotate_due(self) -> Generator[Step, Any, int]:
        """Survey, and rotate what is due; how many."""
        yield from self.survey()
        return (yield from self.rotate(self.due()))

    def keep(self, every_ms: int = EVERY_MS, on_error: Callable[[AppError], None] | None = None) -> None:
        """Rotate what is due from now on, as long as the node runs: at once, and every `every_ms`."""
        node = self.provisioner.node

        def script() -> Generator[Step, Any, None]:
            try:
                yield from self.rotate_due()
            except AppError as error:
                node.env.log("rotation: %s" % error)
                if on_error is not None:
                    on_error(error)

        node.repeat(script, every_ms, "rotation")
