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
# The store with all that today's code keeps. When that grows, add one and name it here.
NEWEST = "2 with rotation and audit"


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


def fill(store) -> None:
    """Something in every field there is."""
    fixed = Entropy(b"content")
    with store.transaction() as state:
        state.component_id = "COMP-app"
        state.claims["id 00000007"] = bytearray(fixed(16))
        state.devices[7] = keystore.Device(
            unique_id=7,
            serial="PACK-7",
            role=1,
            profile="pack",
            public_key=fixed(32),
            node=0x40,
            component_id="COMP-pack",
            owned=True,
            counter=9,
            boot_counter=11,
        )
        state.relationships["lct-1"] = keystore.RelationshipRecord(
            lct_id="lct-1",
            kind=keystore.APP_PACK,
            component_a="COMP-app",
            component_b="COMP-pack",
            unique_id_a=0,
            unique_id_b=7,
            fingerprint_a=fixed(32),
            fingerprint_b=fixed(32),
            node=0x40,
            scope=63,
            epoch=3,
            epoch_tried=4,
            state=keystore.KEYED,
            half_source="bridge",
            salt_hash="5a" * 32,
            rotated=2,
            half_a=bytearray(fixed(64)),
            half_b=bytearray(fixed(64)),
            lct_half=bytearray(fixed(64)),
            root=bytearray(fixed(32)),
            pending=keystore.Pending(4, {"00000007": bytearray(fixed(32))}, bytearray(fixed(32)), "a5" * 32),
        )
        state.journal["register app"] = keystore.JournalEntry("done", "digest", "then", {"component_id": "COMP-app"})
        state.halves["ab" * 32] = "device a b"
        state.audit.append({"at": "then", "event": "clear first transfer", "device": "PACK-7"})
        state.signing = bytearray(fixed(32))
        state.log_heads["host"] = "1 " + "cd" * 32
        state.node_log_keys["00000007 1"] = bytearray(fixed(32))


def made(unlock) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        entropy = Entropy(b"store")
        store = KeyStore(
            pathlib.Path(folder) / "keys", unlock=unlock, machine=MACHINE, urandom=entropy, now=lambda: "now"
        )
        fill(store)
        files = {path.name: path.read_bytes().hex() for path in store.directory.iterdir() if path.name != "lock"}
        return {"files": files, "host_id": store.host_id, "private": store.private_key.hex()}


def build() -> dict:
    stores = json.loads(TARGET.read_text())["stores"]
    ways = {
        "2 key file": KeyFile(),
        "2 passphrase": Passphrase(lambda new: bytearray(PASSPHRASE.encode()), LOG2_N),
        NEWEST: KeyFile(),
    }
    for name, unlock in ways.items():
        if name not in stores:
            stores[name] = made(unlock)
    return {
        "source": "packtrust: schema 1 by commit 5b9d53d, the others by generate_keystore.py; scrypt: RFC 7914",
        "machine": MACHINE.decode(),
        "passphrase": PASSPHRASE,
        "schema": vault.SCHEMA,
        "newest": NEWEST,
        "stores": stores,
    }


if __name__ == "__main__":
    text = json.dumps(build(), indent=1) + "\n"
    if "--check" in sys.argv:
        sys.exit(
            0 if TARGET.read_text() == text else "keystore.json is stale: python tests/vectors/generate_keystore.py"
        )
    TARGET.write_text(text)
