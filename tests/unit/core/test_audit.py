"""The audit log's format: entries there and back, the chain, keys that go one way, and golden vectors."""

from packtrust import audit
from portable import hexlify, raises, unhexlify, vectors


def cases():
    return vectors("audit")


def hexed(data):
    return hexlify(bytes(data)).decode()


def test_keys_and_chain_are_those_of_the_vectors():
    made = cases()
    key = audit.first_key(unhexlify(made["receipt_key"]))
    assert hexed(key) == made["first_key"]
    chain = bytes(32)
    for case in made["entries"]:
        raw = unhexlify(case["entry"])
        assert hexed(audit.key_id(key)) == case["key_id"]
        chain = audit.link(chain, raw)
        assert hexed(chain) == case["chain"]
        assert hexed(audit.entry_mac(key, chain)) == case["mac"]
        key = audit.next_key(key)
    assert hexed(key) == made["next_key"]


def test_entries_are_those_of_the_vectors_and_parse_back():
    for case in cases()["entries"]:
        raw = unhexlify(case["entry"])
        entry = audit.parse_entry(raw)
        for name in ("number", "boot_counter", "uptime_s", "kind", "values"):
            assert getattr(entry, name) == case["parsed"][name], (name, entry.values)


def test_a_part_is_that_of_the_vectors_and_proves_its_end():
    made = cases()
    body = unhexlify(made["part"])
    nonce = unhexlify(made["nonce"])
    part = audit.parse_part(body)
    assert [hexed(entry) for entry, _ in part.entries] == [case["entry"] for case in made["entries"]]
    assert (part.start, part.following, part.first, part.signs, part.score) == (0, len(made["entries"]), 0, 3, 40)
    key = unhexlify(made["next_key"])
    assert part.encode(key, nonce) == body
    assert audit.is_reported(body, key, nonce)
    assert not audit.is_reported(body, key, bytes(16))
    assert not audit.is_reported(body, audit.next_key(key), nonce)
    changed = bytearray(body)
    changed[20] ^= 1
    assert not audit.is_reported(changed, key, nonce)


def test_bytes_that_are_no_part_are_none():
    body = unhexlify(cases()["part"])
    for length in range(len(body)):
        assert audit.parse_part(body[:length]) is None, length
    assert audit.parse_part(body + b"\0") is None
    assert audit.parse_part(b"\2" + body[1:]) is None


def test_bytes_that_are_no_entry_are_none():
    for case in cases()["entries"]:
        raw = unhexlify(case["entry"])
        for length in range(13):
            assert audit.parse_entry(raw[:length]) is None
        assert audit.parse_entry(raw + bytes(audit.ENTRY_MAX)) is None
        assert audit.parse_entry(raw[:-1]) is None


def test_an_unknown_kind_is_shown_as_it_is():
    raw = bytearray(audit.encode_entry(7, 1, 2, "sign", audit.sign_body(1, 2, 3)))
    raw[12] = 200
    entry = audit.parse_entry(raw)
    assert entry.kind == "kind-200" and entry.values == {"body": "010200000003"}
    assert audit.sign_name(99) == "sign-99"


def test_counts_keep_the_gravest_and_stop_at_their_highest():
    known = audit.reasons()
    body = audit.counts_body(1, 2, 3, [(name, 70000) for name in known])
    entry = audit.parse_entry(audit.encode_entry(1, 1, 1, "counts", body))
    assert len(entry.raw) <= audit.ENTRY_MAX
    assert sorted(entry.values["refused"]) == sorted(known[: audit.COUNTS_MAX])
    assert entry.values["refused"]["tag"] == 0xFFFF
    other = audit.parse_entry(audit.encode_entry(1, 1, 1, "counts", audit.counts_body(1, 2, 3, [("nonsense", 4)])))
    assert other.values["refused"] == {"other": 4}


def test_a_kind_that_is_none_is_a_mistake_of_ours():
    assert raises(ValueError, audit.encode_entry, 1, 1, 1, "nonsense", b"") is not None


def test_the_next_key_does_not_give_the_one_before():
    key = audit.first_key(bytes(32))
    assert audit.next_key(key) != key
    assert audit.entry_mac(key, bytes(32)) != audit.entry_mac(audit.next_key(key), bytes(32))


def test_an_id_tells_keys_apart_and_nothing_else():
    assert audit.key_id(bytes(32)) != audit.key_id(bytes(31) + b"\1")
    assert len(audit.key_id(bytes(32))) == audit.KEY_ID_LENGTH


def test_names_of_kinds_signs_and_reasons_are_unique():
    for names in (audit.kinds(), audit.signs_of_tampering(), audit.reasons()):
        assert len(set(names)) == len(names)
        assert "" not in names
    assert len(audit.signs_of_tampering()) <= 16
    assert audit.sign_names(0b100010) == ["forged-tag", "twin"]
