"""What a backend is, and those that packtrust.crypto.registry has found so far."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from packtrust._typing import Buffer

    class Aead(Protocol):
        """AES-GCM under one key. Its caller has checked the arguments."""

        def encrypt(self, nonce: Buffer, data: Buffer, aad: Buffer) -> bytes:
            """Ciphertext and tag."""

        def decrypt(self, nonce: Buffer, data: Buffer, aad: Buffer) -> bytes:
            """Plaintext, or InvalidTag."""

        def seal_in_place(self, work: bytearray, n: int, aad_length: int) -> bool | None:
            """Encrypt the n bytes at work[28], write the tag behind them."""

        def open_in_place(self, work: bytearray, n: int, aad_length: int) -> bool:
            """Decrypt them if the tag is right; else False, and work is unchanged."""

        def wipe(self) -> None:
            """Destroy the key."""


class Backend:
    """What does the work. All but AES-GCM falls to our own code here; the host overrides it.

    Functions of ours replace the methods at their first call: an import costs 20 000 instructions on a board.
    """

    def __init__(self, name: str, gcm: "Callable[[Buffer], Aead]") -> None:
        self.name = name
        self.gcm = gcm
        if TYPE_CHECKING:
            self.kernel: object = None  # set where AES-GCM is a module of native code: that module

    def hmac(self, key: "Buffer", parts: "Sequence[Buffer]") -> bytes:
        """HMAC-SHA-256 of the parts, one after the other."""
        from packtrust.crypto.kdf import hmac

        self.hmac = hmac  # type: ignore[method-assign]
        return hmac(key, parts)

    def expand(self, prk: "Buffer", info: "Sequence[Buffer]", length: int) -> bytes:
        """HKDF-Expand with SHA-256, `info` in parts."""
        from packtrust.crypto.kdf import expand

        self.expand = expand  # type: ignore[method-assign]
        return expand(prk, info, length)

    def multiply(self, scalar: "Buffer", point: "Buffer") -> bytes:
        """X25519; all zero for a point of small order."""
        from packtrust.crypto.curve25519 import multiply

        self.multiply = multiply  # type: ignore[method-assign]
        return multiply(scalar, point)


LOADED = {}  # type: dict[str, Backend]  # they have passed their test
BROUGHT = {}  # type: dict[str, list[str]]  # modules by backend
REFUSED = {}  # type: dict[str, str]  # with the reason, "" for those that are not here
CHOSEN = {}  # type: dict[str, Backend]  # under "": the one in use
