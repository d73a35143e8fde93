"""Merkle tree and signed notes against published vectors."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from packtrust_host.audit.merkle import Tree
from packtrust_host.audit.note import (
    Checkpoint,
    NoteError,
    Verifier,
    open_checkpoint,
    open_note,
    parse_checkpoint,
    sign,
    split_notes,
)

# Leaves and roots of the tests of Certificate Transparency's reference implementation (RFC 6962).
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# The example of Go's golang.org/x/mod/sumdb/note, where the format comes from.
KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT + "\n\u2014 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The example of C2SP tlog-checkpoint.
CHECKPOINT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def test_roots_of_certificate_transparency() -> None:
    tree = Tree()
    assert tree.root() == hashlib.sha256(b"").digest()
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        tree.add(bytes.fromhex(leaf))
        assert tree.root().hex() == root


def _recursive(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, as it is defined there."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + _recursive(leaves[:k]) + _recursive(leaves[k:])).digest()


def test_the_growing_tree_is_that_of_the_definition() -> None:
    tree = Tree()
    leaves = []
    for number in range(70):
        leaves.append(b"%d" % number)
        tree.add(leaves[-1])
        assert tree.root() == _recursive(leaves), number


def test_the_note_of_the_format_s_origin_opens() -> None:
    verifier = Verifier.parse(KEY)
    assert str(verifier) == KEY
    assert open_note(NOTE, verifier) == TEXT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cryptography", "Cryptography"),
        ("x08go", "x08gp"),
        ("\n\n", "\n"),
        ("\u2014 ", "-- "),
        ("PeterNeumann x", "PeterNeumanx x"),
    ],
)
def test_a_changed_note_does_not_open(old: str, new: str) -> None:
    with pytest.raises(NoteError):
        open_note(NOTE.replace(old, new), Verifier.parse(KEY))


@pytest.mark.parametrize("text", ["", "x", "a+b", KEY.replace("c74f", "c74e"), KEY[:-4] + "AAAA", "a+b+!!"])
def test_a_verifier_key_that_is_none(text: str) -> None:
    with pytest.raises(NoteError):
        Verifier.parse(text)


def test_the_checkpoint_of_the_specification_parses() -> None:
    found = parse_checkpoint(CHECKPOINT)
    assert (found.origin, found.size, found.root[:2].hex()) == ("example.com/behind-the-sofa", 20852163, "0ac5")
    assert found.text() == CHECKPOINT


@pytest.mark.parametrize(
    "text", ["", "a\n1\n", "\n1\nAAAA\n", "a\n01\n" + "A" * 43 + "=\n", "a\n-1\n" + "A" * 43 + "=\n", "a\n1\nAAAA\n"]
)
def test_a_checkpoint_that_is_none(text: str) -> None:
    with pytest.raises(NoteError):
        parse_checkpoint(text)


def test_signed_and_opened() -> None:
    private = bytes(range(32))
    public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    verifier = Verifier("packtrust/x/host", public)
    made = Checkpoint("packtrust/x/host", 3, bytes(32))
    assert open_checkpoint(made.sign(private), verifier) == made
    other = Checkpoint("packtrust/x/other", 3, bytes(32))
    with pytest.raises(NoteError, match="not signed by"):
        open_checkpoint(other.sign(private), verifier)
    with pytest.raises(NoteError, match="of the log"):
        open_checkpoint(sign(other.text(), "packtrust/x/host", private), verifier)
    # Signatures of others beside ours are ignored (signed-note).
    both = made.sign(private) + "\u2014 witness AAAAAAAA\n"
    assert open_checkpoint(both, verifier) == made
    assert split_notes(both + "\n" + made.sign(private) + "\n") == [both, made.sign(private)]


@pytest.mark.parametrize(("text", "name"), [("no newline", "n"), ("tab\t\n", "n"), ("x\n", "a b"), ("x\n", "a+b")])
def test_what_is_not_signed(text: str, name: str) -> None:
    with pytest.raises(NoteError):
        sign(text, name, bytes(32))
