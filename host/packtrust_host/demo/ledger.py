"""What the traffic means at the bridge: energy moved, and trust that follows from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal

from packtrust_host.app.keystore import RelationshipRecord
from packtrust_host.app.node import AppNode
from packtrust_host.app.registration import CREATOR
from packtrust_host.bridge.client import BridgeClient

# One ATP stands for one kilowatt hour. The bridge keeps six decimals.
_STEP = Decimal("0.000001")
_LEAST_SCORE = Decimal("0.01")  # the bridge takes 0 for "not given"


class EnergyMeter:
    """Integrates each module's power over its authentic MODULE_POWER records: an AppNode's `on_record`."""

    def __init__(self) -> None:
        self.given_wh: dict[int, float] = {}
        self._before: dict[int, tuple[int, float]] = {}

    def on_record(self, name: str, values: Mapping[str, int | None], now_ms: int) -> None:
        """Take a record of the app's bus."""
        module, volts, amperes = values.get("module_id"), values.get("voltage_mv"), values.get("current_ma")
        if name != "MODULE_POWER" or module is None or volts is None or amperes is None:
            return
        if module in self._before:
            then_ms, watts = self._before[module]
            self.given_wh[module] = self.given_wh.get(module, 0.0) + watts * (now_ms - then_ms) / 3.6e6
        self._before[module] = (now_ms, -volts * amperes / 1e6)


@dataclass(frozen=True)
class Settled:
    """What was booked: ATP each module gave, by node byte, and the new score of each relationship."""

    atp: dict[int, Decimal]
    scores: dict[str, Decimal]


def share(good: int, bad: int) -> Decimal:
    """Of `good + bad` events the share of good ones, 0..1, two decimals; nothing at all counts as none."""
    if good + bad == 0:
        return Decimal(0)
    return (Decimal(good) / Decimal(good + bad)).quantize(Decimal("0.01"), ROUND_DOWN)


def evidence_of(node: AppNode) -> tuple[Decimal, Decimal]:
    """(authentic, obeyed) for `settle`: shares of authentic events alone.

    What anybody on the bus can cause, records that do not open and answers that do not come, is no evidence against a
    peer: only its own authentic word is. So a record counts against it if it opened and says nothing this app knows,
    a command if the pack refused it under its session.
    """
    opened = 0 if node.channel is None else node.channel.stats.get("opened", 0)
    undecodable = node.counters.get("undecodable", 0)
    refused = sum(1 for command in node.commands if command.refused)
    return share(opened - undecodable, undecodable), share(node.counters.get("commands-obeyed", 0), refused)


def settle(
    client: BridgeClient,
    records: Iterable[RelationshipRecord],
    given_wh: Mapping[int, float],
    authentic: Decimal,
    obeyed: Decimal,
) -> Settled:
    """Book each module's energy as a discharge towards its pack, and update every relationship's T3/V3 tensor.

    `authentic`: share of authentic records that make sense (veracity); `obeyed`: share of commands obeyed
    (temperament), see `evidence_of`. Raises BridgeError.
    """
    atp: dict[int, Decimal] = {}
    scores: dict[str, Decimal] = {}
    for record in records:
        score = max(_LEAST_SCORE, (authentic + obeyed) / 2)
        tensor_id = "tensor_%s_%s" % (record.component_a, record.component_b)
        dimensions = {"veracity": authentic, "temperament": obeyed}
        client.update_tensor(CREATOR, tensor_id, score, "energy_operation", dimensions)
        shown = client.read_tensor(tensor_id)
        scores[record.lct_id] = shown.score
        if not record.unique_id_a:
            continue  # the app's own: no energy flows there
        moved = Decimal(given_wh.get(record.node, 0.0)) / 1000
        amount = min(moved.quantize(_STEP, ROUND_DOWN), client.energy_balance(record.component_b).atp)
        if amount <= 0:
            continue
        operation = client.energy_operation(
            CREATOR, record.component_b, record.component_a, "discharge", amount, "discharge"
        )
        client.energy_transfer(CREATOR, operation.operation_id, amount, "discharge")
        atp[record.node] = amount
    return Settled(atp, scores)
