"""A key package between receipt and commit: in RAM only, so a reboot leaves the epoch before it running."""

from packtrust._compat import const
from packtrust.crypto import wipe, x25519
from packtrust.keys import pair_secret
from packtrust.pairing import PairExchange
from packtrust_node.relation import Relation, make_relationship

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer
    from packtrust.package import KeyPackage
    from packtrust_node.identity import Identity
    from packtrust_node.neighbour import Neighbour

TIMEOUT_MS = const(30000)
OFFER_REPEAT_MS = const(500)
PAIRED_REPEAT_MS = const(1000)


class Staged:
    """A package taken but not committed, and its pair exchange. The halves are the caller's to wipe; what is left of
    them is in the exchange until it has its root.

    draft   the relationship to be, without its root

    Raises CryptoError for a peer public key that no honest peer has, KeyFormatError for bad halves.
    """

    def __init__(
        self,
        package: "KeyPackage",
        package_hash: bytes,
        receipt_key: bytearray,
        identity: "Identity",
        neighbour: "Neighbour",
        entropy: "Buffer",
        now_ms: int,
    ) -> None:
        self.draft = Relation(
            package.counter,
            package.epoch,
            package.role,
            package.side,
            package.node,
            package.scope,
            package.max_records,
            package.max_age_s,
            0,
            b"",
            package.peer_public,
            package.lct_id,
            package.component_a,
            package.component_b,
            package.lct_half,
        )
        self.package_hash = package_hash
        self.receipt_key = receipt_key
        self.neighbour = neighbour
        self.since_ms = now_ms
        self.offer_ms = None  # type: int | None  # when an OFFER is due (initiator, once asked)
        self.paired_ms = None  # type: int | None  # when PAIRED is due
        relationship = make_relationship(
            package.component_a,
            package.component_b,
            package.lct_id,
            package.side,
            identity.fingerprint,
            self.draft.peer_fingerprint,
        )
        self.tag = relationship.tag
        secret = bytearray(pair_secret(package.half_a, package.half_b, package.salt))
        dh_static = bytearray()
        if any(package.peer_public):
            dh_static = bytearray(x25519(identity.private, package.peer_public))
        self.exchange = PairExchange(package.role, secret, dh_static, relationship, package.epoch, entropy)
        wipe(secret)
        wipe(dh_static)

    @property
    def epoch(self) -> int:
        """Epoch of the package."""
        return self.draft.epoch

    def relation(self, unique_id: int) -> Relation:
        """The relationship to keep, once the exchange has agreed."""
        draft = self.draft
        root = self.exchange.root
        return Relation(
            draft.counter,
            draft.epoch,
            draft.role,
            draft.side,
            draft.node,
            draft.scope,
            draft.max_records,
            draft.max_age_s,
            unique_id,
            b"" if root is None else root,
            draft.peer_public,
            draft.lct_id,
            draft.component_a,
            draft.component_b,
            draft.lct_half,
        )

    def wipe(self, with_receipt_key: bool = True) -> None:
        """Destroy what is secret."""
        self.exchange.wipe()
        self.draft.wipe()
        if with_receipt_key:
            wipe(self.receipt_key)
