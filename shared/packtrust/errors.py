"""The errors of packtrust: every message says what went wrong and what to do next.

No message ever holds key material. Bytes from the wire do not raise out of a node's loop: the core
turns them into events; these errors are for the caller's own mistakes and for the calls that ask
for a verdict.
"""


class PacktrustError(Exception):
    """Base of all errors raised by packtrust."""


class CryptoError(PacktrustError):
    """A cryptographic operation cannot be done with what it was given."""


class InvalidTag(CryptoError):
    """A ciphertext is not authentic.

    Wrong key, nonce or associated data, or bytes changed on the way.
    """


class KeyFormatError(CryptoError):
    """A key, nonce or half has the wrong length or form."""


class BackendUnavailable(CryptoError):
    """A named crypto backend does not exist here, or failed its self-test."""


class ChannelError(PacktrustError):
    """A channel was asked for something its state does not allow.

    No session, too many records, wrong role.
    """


class PackageError(PacktrustError):
    """A claim or key package is malformed, not from the owner, or older than the installed one."""


class PolicyError(PacktrustError):
    """The policy table does not allow this message in this form."""


class StorageError(PacktrustError):
    """Durable state cannot be read or written."""
