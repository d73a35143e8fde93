"""The session handshake: HELLO, REPLY, FINISH (docs/wire.md, section 6)."""

from struct import pack, unpack_from

from packtrust._compat import const
from packtrust.crypto import compare_digest, hkdf_expand, hmac_sha256, sha256, wipe
from packtrust.keys import BOTH, INITIATOR_TO_RESPONDER, RESPONDER_TO_INITIATOR, Relationship
from packtrust.record import IV_BASE_LENGTH, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from packtrust._typing import Buffer

    KeyLog = Callable[[int, bytes, bytes, bytes], None]

INITIATOR = const(1)
RESPONDER = const(2)

HELLO = const(0x01)
REPLY = const(0x02)
FINISH = const(0x03)

# Why a second REPLY to one HELLO is refused that proves the peer's keys as the first one did.
TWIN = "handshake-twin"

# REPLYs, or FINISHs, of one handshake whose MAC is looked at though those before them were forged: what a flood of
# them costs is bounded by the rate of the handshakes.
FORGED_MAX = const(8)
# The pair exchange shares the rows of the handshake (docs/wire.md, section 5): packtrust.pairing.
OFFER = const(0x11)
ANSWER = const(0x12)
CONFIRM = const(0x13)
AGREED = const(0x14)

NONCE_LENGTH = const(16)

_HELLO_LENGTH = const(27)
_REPLY_LENGTH = const(57)
_FINISH_LENGTH = const(37)
_PAIRING_HEAD = const(13)  # type, lct_tag, epoch


def is_pairing(payload: "Buffer") -> bool:
    """Whether a payload of a handshake row belongs to a pair exchange."""
    return len(payload) >= _PAIRING_HEAD and OFFER <= payload[0] <= AGREED


def epoch_of(payload: "Buffer") -> int:
    """The epoch a handshake message is about; -1 if the payload is no handshake message."""
    size = len(payload)
    if size == _HELLO_LENGTH and payload[0] == HELLO:
        return int(unpack_from(">I", payload, 3)[0])
    if (size == _REPLY_LENGTH and payload[0] == REPLY) or (size == _FINISH_LENGTH and payload[0] == FINISH):
        return int(unpack_from(">I", payload, 1)[0])
    return -1


def hello_refusal(payload: "Buffer") -> str:
    """Why a HELLO is refused without any work for it: "handshake-version", "handshake-role", or ""."""
    if payload[1] != VERSION:
        return "handshake-version"
    return "" if payload[2] == INITIATOR else "handshake-role"


_KEY_LENGTH = const(32)
_MATERIAL_LENGTH = const(36)
_LABEL = b"packtrust v1 "


class SessionKeys:
    """Both directions of a session, as its owner sees them.

    `context` is `Relationship.context(epoch)`; `senders` are the fingerprints of who sends in direction 0 and 1.

    material   our key (32), the peer's (32), our IV base (4), the peer's (4): 72 bytes, secret
    senders    the first four bytes of both fingerprints, by direction

    `key_log`, if given, is called with (direction, key, iv_base, sender) of both: for an owner who wants to read along.
    """

    def __init__(
        self,
        secret: "Buffer",
        context: bytes,
        epoch: int,
        role: int,
        senders: "tuple[bytes, bytes]",
        key_log: "KeyLog | None" = None,
    ) -> None:
        self.epoch = epoch
        self.senders = senders[0][:4] + senders[1][:4]
        self.material = bytearray(2 * _MATERIAL_LENGTH)
        info = bytearray(_LABEL + b"record\x00" + context + b"\x00")
        for direction in (INITIATOR_TO_RESPONDER, RESPONDER_TO_INITIATOR):
            info[-1] = direction
            material = bytearray(hkdf_expand(secret, info, _MATERIAL_LENGTH))
            if key_log is not None:
                key_log(direction, bytes(material[:_KEY_LENGTH]), bytes(material[_KEY_LENGTH:]), senders[direction][:4])
            ours = (direction == INITIATOR_TO_RESPONDER) == (role == INITIATOR)
            at = 0 if ours else _KEY_LENGTH
            self.material[at : at + _KEY_LENGTH] = material[:_KEY_LENGTH]
            at = 2 * _KEY_LENGTH if ours else 2 * _KEY_LENGTH + IV_BASE_LENGTH
            self.material[at : at + IV_BASE_LENGTH] = material[_KEY_LENGTH:]
            wipe(material)

    def wipe(self) -> None:
        """Destroy both keys."""
        wipe(self.material)


class Handshake:
    """One end of one handshake under the `root` of one epoch; `wipe` destroys its copy of that.

    `side` says whether we are component A (0) or B (1); `nonce` is 16 fresh random bytes. `hello()` starts it on the
    initiator's side; `feed()` takes what arrives. `keys` is set when the session secret is known: on the initiator's
    side after the REPLY verified, on the responder's already when the REPLY is made, and not to be trusted there
    before `proved`.
    """

    def __init__(
        self,
        role: int,
        root: "Buffer",
        relationship: Relationship,
        epoch: int,
        side: int,
        policy_digest: bytes,
        boot_counter: int,
        nonce: "Buffer",
        key_log: "KeyLog | None" = None,
    ) -> None:
        self.role = role
        self.epoch = epoch
        self.keys = None  # type: SessionKeys | None
        self.proved = False
        self.reason = ""  # why the last message was refused
        self._root = bytearray(root)
        self._context = relationship.context(epoch)
        initiator = side if role == INITIATOR else side ^ 1
        self._senders = (relationship.fingerprint_of(initiator), relationship.fingerprint_of(initiator ^ 1))
        self._policy_digest = policy_digest
        self._boot_counter = boot_counter
        self._nonce = bytes(nonce)
        self._key_log = key_log
        self._mac_key = bytearray(hkdf_expand(root, self._info(b"handshake"), 32))
        self._transcript = b""
        self._forged = 0

    def hello(self) -> bytes:
        """The initiator's first message, 27 bytes."""
        head = bytes((HELLO, VERSION, INITIATOR))
        return head + pack(">II", self.epoch, self._boot_counter) + self._nonce

    def feed(self, payload: "Buffer") -> "bytes | None":
        """Take a message; the answer to send, or None. Sets `reason` where one is refused; never raises on bytes."""
        self.reason = ""
        if epoch_of(payload) != self.epoch:
            self.reason = "handshake-malformed"
            return None
        if not self._mac_key:
            self.reason = "handshake-unexpected"  # wiped: no key, so nothing is authentic
            return None
        kind = payload[0]
        if self._forged >= FORGED_MAX and kind != HELLO:
            self.reason = "handshake-rate"
            return None
        if self.role == INITIATOR:
            if kind == REPLY:
                return self._on_reply(payload)
            self.reason = "handshake-role"  # a message of our own role: reflection
            return None
        if kind == HELLO:
            return self._on_hello(payload)
        if kind == FINISH:
            self._on_finish(payload)
        else:
            self.reason = "handshake-role"
        return None

    def _info(self, label: bytes, more: bytes = b"") -> bytes:
        return b"".join((_LABEL, label, b"\x00", self._context, bytes((BOTH,)), more))

    def _bind(self, boot_initiator: int, boot_responder: int, nonce_initiator: bytes, nonce_responder: bytes) -> None:
        self._transcript = sha256(
            b"packtrust v1 handshake"
            + bytes((VERSION, INITIATOR))
            + self._policy_digest
            + self._context
            + pack(">II", boot_initiator, boot_responder)
            + nonce_initiator
            + nonce_responder
        )

    def _derive(self) -> None:
        secret = bytearray(hkdf_expand(self._root, self._info(b"session", self._transcript), 32))
        self.keys = SessionKeys(secret, self._context, self.epoch, self.role, self._senders, self._key_log)
        wipe(secret)

    def _on_hello(self, payload: "Buffer") -> "bytes | None":
        self.reason = hello_refusal(payload)
        if self.reason:
            return None
        boot = unpack_from(">I", payload, 7)[0]
        self._bind(boot, self._boot_counter, bytes(payload[11:27]), self._nonce)
        self._derive()
        head = bytes((REPLY,)) + pack(">II", self.epoch, self._boot_counter) + self._nonce
        return head + hmac_sha256(self._mac_key, b"reply", self._transcript)

    def _on_reply(self, payload: "Buffer") -> "bytes | None":
        transcript = self._transcript
        if self.proved and compare_digest(bytes(payload[25:57]), hmac_sha256(self._mac_key, b"reply", transcript)):
            return None  # once more: `finish` is repeated by the clock, not by what anybody can send
        boot = unpack_from(">I", payload, 5)[0]
        self._bind(self._boot_counter, boot, self._nonce, bytes(payload[9:25]))
        if not self._is_proof(payload[25:57], b"reply"):
            if self.proved:
                self._transcript = transcript
            return None
        if self.proved:
            # A node answers a HELLO once, with one nonce: somebody else has its keys and answers too.
            self._transcript = transcript
            self.reason = TWIN
            return None
        self._derive()
        self.proved = True
        return self.finish()

    def finish(self) -> bytes:
        """The initiator's last message, 37 bytes, once it is `proved`; repeat it until a record has come."""
        return bytes((FINISH,)) + pack(">I", self.epoch) + hmac_sha256(self._mac_key, b"finish", self._transcript)

    def _is_proof(self, mac: "Buffer", label: bytes) -> bool:
        """Whether the peer made this MAC. Sets `reason` if not."""
        if compare_digest(bytes(mac), hmac_sha256(self._mac_key, label, self._transcript)):
            return True
        self._forged += 1
        self.reason = "handshake-mac"
        return False

    def _on_finish(self, payload: "Buffer") -> None:
        if not self._transcript:
            self.reason = "handshake-unexpected"
        elif self._is_proof(payload[5:37], b"finish"):
            self.proved = True

    def wipe(self, with_keys: bool = True) -> None:
        """Forget root and MAC key; the session keys too, unless they were taken over."""
        wipe(self._root)
        wipe(self._mac_key)
        self._mac_key = bytearray()
        if with_keys and self.keys is not None:
            self.keys.wipe()
            self.keys = None
