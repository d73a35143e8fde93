"""What can go wrong in the host app.

Every message says the cause and the next step, never a secret.
"""

from packtrust.errors import PacktrustError


class AppError(PacktrustError):
    """An app operation failed. `cause` is what was seen, `next_step` what the reader can do."""

    def __init__(self, cause: str, next_step: str) -> None:
        super().__init__("%s. Next: %s." % (cause, next_step))
        self.cause = cause
        self.next_step = next_step


class KeyStoreError(AppError):
    """The host key store cannot be read or written, or says something that must not be."""


class KeyStoreLocked(KeyStoreError):
    """The host key store does not open: no passphrase, or a wrong one."""


class NoAnswer(AppError):
    """A device did not answer in time."""


class DeviceRefused(AppError):
    """A device answered REFUSED; `reason` is the code of docs/wire.md, section 7."""

    def __init__(self, cause: str, next_step: str, reason: int) -> None:
        super().__init__(cause, next_step)
        self.reason = reason


class ProofFailed(AppError):
    """A device's MAC does not verify, or proves something else than what was expected."""


class ProvisioningFailed(AppError):
    """A relationship was not installed.

    `step` is where it stopped, both devices keep their old epoch.
    """

    def __init__(self, cause: str, next_step: str, step: str) -> None:
        super().__init__(cause, next_step)
        self.step = step


class RegistrationFailed(AppError):
    """The bridge's answers do not agree with what was sent, or are not known."""


class UnknownOutcome(RegistrationFailed):
    """A write was sent to the bridge earlier and never answered.

    It is not repeated without being told to.
    """


class BusLost(AppError):
    """The CAN adapter is gone or its bus does not work."""


class Cancelled(AppError):
    """The task was ended before it was done."""
