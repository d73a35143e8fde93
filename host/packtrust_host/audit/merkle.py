"""Merkle tree hashes of RFC 6962, section 2.1 (the same in RFC 9162), of a list that only grows."""

import hashlib

EMPTY = hashlib.sha256().digest()


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """The tree over the leaves added so far: 32 bytes for each bit of their number, `root()` at any time."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []  # hashes of full subtrees, the largest first: one for each 1 bit of `size`

    def add(self, data: bytes) -> None:
        """Append a leaf."""
        found = leaf_hash(data)
        size = self.size
        while size & 1:
            found = node_hash(self._peaks.pop(), found)
            size >>= 1
        self._peaks.append(found)
        self.size += 1

    def root(self) -> bytes:
        """The tree's hash, 32 bytes."""
        if not self._peaks:
            return EMPTY
        found = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            found = node_hash(peak, found)
        return found
