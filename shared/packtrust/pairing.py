"""The pair exchange: one ephemeral X25519 an epoch, authenticated by the static keys (docs/wire.md, section 5)."""

from struct import pack, unpack_from

from packtrust._compat import const
from packtrust.crypto import compare_digest, hmac_sha256, wipe, x25519, x25519_public
from packtrust.errors import CryptoError
from packtrust.handshake import AGREED, ANSWER, CONFIRM, INITIATOR, OFFER, is_pairing
from packtrust.keys import Relationship, epoch_root, static_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

__all__ = ["AGREED", "ANSWER", "CONFIRM", "OFFER", "PairExchange", "is_pairing", "tag_of"]

_HEAD = const(13)  # type, lct_tag, epoch


def tag_of(payload: "Buffer") -> bytes:
    """The `lct_tag` a message of a pair exchange is about."""
    return bytes(payload[1:9])


class PairExchange:
    """One end of the exchange. `role` INITIATOR sends `offer()`; both give what arrives to `feed()`.

    `secret` is the pair secret, `dh_static` X25519 of the two binding keys (empty for a peer without one),
    `entropy` 32 fresh random bytes. `public` is our ephemeral public key. `root` is set when both ephemeral keys are
    known; `agreed` is True when the peer has proved that it has the same root.

    Raises CryptoError if there is no entropy.
    """

    def __init__(
        self,
        role: int,
        secret: "Buffer",
        dh_static: "Buffer",
        relationship: Relationship,
        epoch: int,
        entropy: "Buffer",
    ) -> None:
        if len(entropy) != 32:
            raise CryptoError("a pair exchange needs 32 random bytes: check the node's entropy source")
        self.role = role
        self.relationship = relationship
        self.epoch = epoch
        self.root = None  # type: bytearray | None
        self.agreed = False
        self._head = relationship.tag + pack(">I", epoch)
        self._secret = bytearray(secret)
        self._dh_static = bytearray(dh_static)
        self._key = relationship.expand(static_root(secret, dh_static), "pair exchange", epoch)
        self._ephemeral = bytearray(entropy)
        self.public = bytes(x25519_public(entropy))
        self._peer_public = b""
        self._answer = b""
        self._confirm_key = b""

    def wipe(self) -> None:
        """Destroy what is secret here. `root` too, unless the owner has taken it (set it to None)."""
        for secret in (self._secret, self._dh_static, self._ephemeral, self.root):
            if secret is not None:
                wipe(secret)
        self._key = b""
        self._confirm_key = b""

    def offer(self) -> bytes:
        """The first message; repeat it until the exchange is agreed or given up."""
        return self._message(OFFER, self.public + hmac_sha256(self._key, b"offer", self.public))

    def _message(self, kind: int, body: bytes) -> bytes:
        return bytes((kind,)) + self._head + body

    def _agree(self, initiator: bytes, responder: bytes) -> None:
        peer = responder if self.role == INITIATOR else initiator
        dh_ephemeral = bytearray(x25519(self._ephemeral, peer))
        self.root = bytearray(epoch_root(self._secret, self._dh_static, dh_ephemeral))
        self._confirm_key = self.relationship.expand(self.root, "pair confirm", self.epoch)
        self._peer_public = peer
        wipe(dh_ephemeral)
        wipe(self._ephemeral)
        wipe(self._secret)
        wipe(self._dh_static)

    def _mac(self, who: bytes) -> bytes:
        if self.role == INITIATOR:
            return hmac_sha256(self._confirm_key, who, self.public, self._peer_public)
        return hmac_sha256(self._confirm_key, who, self._peer_public, self.public)

    def feed(self, payload: "Buffer") -> "bytes | None":
        """Take a message; the message to send back, or None. What does not verify changes nothing and never raises."""
        if len(payload) < _HEAD or bytes(payload[1:_HEAD]) != self._head:
            return None
        kind = payload[0]
        body = bytes(payload[_HEAD:])
        try:
            if self.role == INITIATOR:
                if kind == ANSWER:
                    return self._on_answer(body)
                if kind == AGREED:
                    self._on_agreed(body)
            elif kind == OFFER:
                return self._on_offer(body)
            elif kind == CONFIRM:
                return self._on_confirm(body)
        except CryptoError:
            return None  # an all-zero X25519 result: the peer sent a bad point; nothing has changed
        return None

    def _on_offer(self, body: bytes) -> "bytes | None":
        public = body[:32]
        if len(body) != 64 or not compare_digest(body[32:], hmac_sha256(self._key, b"offer", public)):
            return None
        return self.accept(public)

    def accept(self, public: bytes) -> "bytes | None":
        """ANSWER to the initiator's ephemeral key, by whatever way it came; None if another one was accepted before.

        Only CONFIRM proves who it is from. Raises CryptoError for a bad point.
        """
        if self.root is None:
            self._agree(public, self.public)
            self._answer = self._message(ANSWER, self.public + hmac_sha256(self._key, b"answer", public, self.public))
        elif public != self._peer_public:
            return None
        return self._answer

    def _on_answer(self, body: bytes) -> "bytes | None":
        public = body[:32]
        if len(body) != 64:
            return None
        if not compare_digest(body[32:], hmac_sha256(self._key, b"answer", self.public, public)):
            return None
        if self.root is None:
            self._agree(self.public, public)
        elif public != self._peer_public:
            return None
        return self._message(CONFIRM, self._mac(b"initiator"))

    def _on_confirm(self, body: bytes) -> "bytes | None":
        if self.root is None or not compare_digest(body, self._mac(b"initiator")):
            return None
        self.agreed = True
        return self._message(AGREED, self._mac(b"responder"))

    def _on_agreed(self, body: bytes) -> None:
        if self.root is not None and compare_digest(body, self._mac(b"responder")):
            self.agreed = True


def epoch_of(payload: "Buffer") -> int:
    """The epoch a message of a pair exchange is about (payload of at least 13 bytes)."""
    return int(unpack_from(">I", payload, 9)[0])
