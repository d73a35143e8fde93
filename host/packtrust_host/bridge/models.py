"""Replies of a bridge, as the client returns them: frozen, typed, and mute about key halves.

Any word is accepted as a status: bridges disagree on the vocabulary. Times are unix seconds.
"""

from dataclasses import dataclass, field
from decimal import Decimal

from packtrust_host.bridge.halves import wipe

DEFAULT_PORT = 8080  # of the embedded bridge


@dataclass(frozen=True)
class Health:
    """GET /health."""

    status: str
    service: str
    timestamp: int


@dataclass(frozen=True)
class BridgeStatus:
    """GET /blockchain/status. `rest_api_connected` counts; `mode` is "embedded" for ours."""

    mode: str
    connected: bool
    rest_api_connected: bool
    errors: tuple[str, ...]


@dataclass(frozen=True)
class Registered:
    """A new component."""

    component_id: str
    lct_id: str
    status: str
    creator: str
    component_data: str
    context: str
    txhash: str


@dataclass(frozen=True)
class Component:
    """A component as stored; `hardware_specs` is the `component_data` it was registered with."""

    component_id: str
    component_type: str
    hardware_specs: str
    manufacturer_id: str
    status: str
    registered_at: str
    relationship_ids: tuple[str, ...]


@dataclass(frozen=True)
class Identity:
    """Whether the bridge ever verified a component, and by what."""

    component_id: str
    verified: bool
    status: str
    verified_at: str
    method: str
    evidence: str


@dataclass(frozen=True)
class LctCreated:
    """A new relationship with its halves, 64 bytes each. Wipe it when they are stored.

    The halves are None only if the caller allowed placeholders and the bridge sent them.
    """

    lct_id: str
    component_a: str
    component_b: str
    status: str
    context: str
    proxy_id: str
    created_at: int
    creator: str
    txhash: str
    device_key_half: bytearray | None = field(repr=False, compare=False)
    lct_key_half: bytearray | None = field(repr=False, compare=False)

    def wipe(self) -> None:
        """Overwrite the halves."""
        wipe(self.device_key_half)
        wipe(self.lct_key_half)


@dataclass(frozen=True)
class Lct:
    """A relationship as stored."""

    lct_id: str
    component_a: str
    component_b: str
    status: str
    creator: str
    context: str
    proxy_id: str
    created_at: int
    updated_at: int


@dataclass(frozen=True)
class LctStatus:
    """Reply to a change of status or a revocation."""

    lct_id: str
    status: str


@dataclass(frozen=True)
class Challenge:
    """A pairing in progress; complete it within 5 minutes."""

    challenge_id: str
    component_a: str
    component_b: str
    status: str
    created_at: int
    creator: str
    txhash: str


@dataclass(frozen=True)
class PairingStatus:
    """How far a pairing is."""

    challenge_id: str
    status: str
    created_at: int


@dataclass(frozen=True)
class Paired:
    """A completed pairing with both device halves, 64 bytes each. Wipe it when they are stored."""

    lct_id: str
    trust_summary: str
    txhash: str
    split_key_a: bytearray = field(repr=False, compare=False)
    split_key_b: bytearray = field(repr=False, compare=False)

    def wipe(self) -> None:
        """Overwrite the halves."""
        wipe(self.split_key_a)
        wipe(self.split_key_b)


@dataclass(frozen=True)
class Tensor:
    """Trust of a pair, 0..1. The dimensions are None where the bridge knows only the scalar."""

    tensor_id: str
    score: Decimal
    status: str
    talent: Decimal | None
    training: Decimal | None
    temperament: Decimal | None
    valuation: Decimal | None
    veracity: Decimal | None
    validity: Decimal | None
    t3_composite: Decimal | None
    v3_composite: Decimal | None
    weight_profile: str
    version: int


@dataclass(frozen=True)
class EnergyOperation:
    """A planned movement of energy. Amount in ATP."""

    operation_id: str
    type: str
    amount: Decimal
    status: str
    txhash: str


@dataclass(frozen=True)
class EnergyTransfer:
    """A movement that was carried out. Amount in ATP."""

    operation_id: str
    amount: Decimal
    status: str
    timestamp: int


@dataclass(frozen=True)
class EnergyBalance:
    """What a component has, in ATP and ADP."""

    component_id: str
    atp: Decimal
    adp: Decimal
    total: Decimal
    trust_weighted: Decimal
    last_updated: int


@dataclass(frozen=True)
class Verification:
    """Result of a posted statement.

    `checked` says whether the bridge named a method of checking at all: today's bridge answers
    verified=True to anything, and then checked is False.
    """

    component_id: str
    verifier: str
    verified: bool
    checked: bool
    reason: str
    timestamp: int

    @property
    def proven(self) -> bool:
        """The bridge really checked the MAC, and it was right."""
        return self.verified and self.checked
