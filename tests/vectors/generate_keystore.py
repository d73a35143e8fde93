"""Writes tests/vectors/keystore.json: host key stores of every schema there was, with what is in them.

    python tests/vectors/generate_keystore.py [--check]

Schema 1 is what `host/packtrust_host/app/keystore.py` of commit 5b9d53d (the only one with that schema) wrote from the
same fixed entropy: those bytes are kept as they are. So are the others once here: what a store holds grows, and an
older one must still open. Delete one to have it made anew, from fixed entropy, by today's code.
`test_keystore.py` opens all of them, and one without any of our code.
"""

import hashlib
import json
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "shared"), str(ROOT / "host")]

from packtrust_host.app import keystore, vault  # noqa: E402
from packtrust_host.app.keystore import KeyStore  # noqa: E402
from packtrust_host.app.unlock import KeyFile, Passphrase  # noqa: E402

TARGET = pathlib.Path(__file__).with_name("keystore.json")
MACHINE = b"machine of the vectors"
PASSPHRASE = "correct horse battery staple"
LOG2_N = 10  # of the vector: quick to check


class Entropy:
    """A stream of SHA-256 over a counter."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._count = 0

    def __call__(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            self._count += 1
            out += hashlib.sha256(self._seed + self._count.to_bytes(4, "big")).digest()
        return out[:size]


def fill(store, types) -> None:
    """Something in every field that schema 1 had."""
    fixed = Entropy(b"content")
    with store.transaction() as state:
        state.component_id = "COMP-app"
        state.claims["id 00000007"] = bytearray(fixed(16))
        state.devices[7] = types.Device(7, "PACK-7", 1, "pack", fixed(32), 0x40, "COMP-pack", True, 9)
        state.relationships["lct-1"] = types.RelationshipRecord(
            "lct-1", "app-pack", "COMP-app", "COMP-pack", 0, 7, fixed(32), fixed(32), 0x40, 63, 3, 4, "keyed",
            "bridge", bytearray(fixed(64)), bytearray(fixed(64)), bytearray(fixed(64)), bytearray(fixed(32)),
            types.Pending(4, {"00000007": bytearray(fixed(32))}, bytearray(fixed(32))),
        )  # fmt: skip
        state.journal["register app"] = types.JournalEntry("done", "digest", "then", {"component_id": "COMP-app"})
        state.halves["ab" * 32] = "device a b"
        state.audit.append({"at": "then", "event": "clear first transfer", "device": "PACK-7"})


def made(unlock) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        entropy = Entropy(b"store")
        store = KeyStore(
            pathlib.Path(folder) / "keys", unlock=unlock, machine=MACHINE, urandom=entropy, now=lambda: "now"
        )
        fill(store, keystore)
        files = {path.name: path.read_bytes().hex() for path in store.directory.iterdir() if path.name != "lock"}
        return {"files": files, "host_id": store.host_id, "private": store.private_key.hex()}


def build() -> dict:
    stores = json.loads(TARGET.read_text())["stores"]
    ways = {
        "2 key file": KeyFile(),
        "2 passphrase": Passphrase(lambda new: bytearray(PASSPHRASE.encode()), LOG2_N),
    }
    for name, unlock in ways.items():
        if name not in stores:
            stores[name] = made(unlock)
    return {
        "source": "packtrust: schema 1 by commit 5b9d53d, the others by generate_keystore.py; scrypt: RFC 7914",
        "machine": MACHINE.decode(),
        "passphrase": PASSPHRASE,
        "schema": vault.SCHEMA,
        "stores": stores,
    }


if __name__ == "__main__":
    text = json.dumps(build(), indent=1) + "\n"
    if "--check" in sys.argv:
        sys.exit(
            0 if TARGET.read_text() == text else "keystore.json is stale: python tests/vectors/generate_keystore.py"
        )
    TARGET.write_text(text)
