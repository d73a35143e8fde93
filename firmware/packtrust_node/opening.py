"""Opens a package for a node: what PACKAGE brings before anything is done with it.

Loaded on demand, and on a small heap without the endpoint, which is loaded again for what comes then: there is no room
for the code of both and for the tables of the package's key.
"""

from packtrust import package as packages
from packtrust import provision
from packtrust.errors import KeyFormatError, PacktrustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer
    from packtrust_node.identity import Identity

    Opened = tuple[packages.KeyPackage | packages.Release, bytes, bytearray, bytes]


def open_package(identity: "Identity", body: "Buffer") -> "Opened | int":
    """(content, package hash, receipt key, public key of its sender), or one of provision.REFUSED_*."""
    sender = packages.sender_of(body)
    if not sender:
        return provision.REFUSED_UNKNOWN
    if identity.claimed and sender != identity.owner_public:
        return provision.REFUSED_NOT_OWNER
    try:
        content, package_hash, receipt_key = packages.open_sealed(
            body, identity.private, identity.fingerprint, identity.claim_code, identity.public
        )
    except KeyFormatError:
        return provision.REFUSED_KEYS
    except PacktrustError:
        # A wrong mode is a question of ownership too: a claimed node takes no claim code, an unclaimed
        # one nothing without it.
        return provision.REFUSED_NOT_OWNER
    return content, package_hash, receipt_key, sender
