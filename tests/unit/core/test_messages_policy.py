"""Which messages are sealed, cite, and are taken in clear."""

from hashlib import sha256

from packtrust.errors import PolicyError
from packtrust.messages import MESSAGES
from packtrust.policy import (
    ANNOUNCE,
    CITED,
    CLEAR_LOWERS,
    COMMAND,
    CONFIG,
    DEFAULT_POLICY,
    HANDSHAKE,
    HEARTBEAT,
    LEGACY_VCU,
    REGISTRATION,
    SEALABLE,
    TELEMETRY,
    TEST,
    TRANSPORT,
    UNSEALABLE,
    Policy,
    profile,
)
from portable import raises


def test_every_row_has_its_class():
    for message in MESSAGES:
        assert DEFAULT_POLICY.class_of(message.base) == message.message_class
        assert DEFAULT_POLICY.is_sealable(message.base) == message.is_sealable


def test_classes_of_known_rows():
    for base, kind in (
        (0x400, COMMAND),
        (0x401, CONFIG),
        (0x403, CONFIG),
        (0x404, COMMAND),
        (0x405, HEARTBEAT),
        (0x407, UNSEALABLE),
        (0x410, LEGACY_VCU),
        (0x430, LEGACY_VCU),
        (0x431, TRANSPORT),
        (0x433, HANDSHAKE),
        (0x435, ANNOUNCE),
        (0x437, TEST),
        (0x439, TELEMETRY),
        (0x43A, COMMAND),
        (0x441, TELEMETRY),
        (0x500, ANNOUNCE),
        (0x502, TELEMETRY),
        (0x50A, TELEMETRY),
        (0x510, REGISTRATION),
        (0x512, HEARTBEAT),
        (0x514, COMMAND),
        (0x516, CONFIG),
        (0x517, HEARTBEAT),
        (0x518, REGISTRATION),
        (0x519, COMMAND),
        (0x51D, ANNOUNCE),
        (0x522, TELEMETRY),
        (0x539, HANDSHAKE),
        (0x53A, TEST),
    ):
        assert DEFAULT_POLICY.class_of(base) == kind, "0x%03X" % base


def test_commands_cite_and_telemetry_does_not():
    for message in MESSAGES:
        cites = message.message_class in (COMMAND, CONFIG, REGISTRATION, HEARTBEAT)
        assert DEFAULT_POLICY.needs_citation(message.base) == cites, message.name


def test_keyed_nodes_take_little_in_clear():
    for message in MESSAGES:
        allowed = message.message_class in (ANNOUNCE, HANDSHAKE, TRANSPORT)
        assert DEFAULT_POLICY.clear_allowed(message.base, True) == allowed, message.name


def test_unkeyed_nodes():
    for message in MESSAGES:
        refused = message.message_class == UNSEALABLE or (
            message.direction == "V>P" and message.message_class in (COMMAND, CONFIG, REGISTRATION, HEARTBEAT)
        )
        assert DEFAULT_POLICY.clear_allowed(message.base, False) == (not refused), message.name


def test_11_bit_frames_are_clear_to_old_vcus_only():
    for message in MESSAGES:
        allowed = message.message_class == LEGACY_VCU
        for keyed in (False, True):
            assert DEFAULT_POLICY.clear_allowed(message.base, keyed, False) == allowed
    assert DEFAULT_POLICY.clear_allowed(0x410, True, False)
    assert not DEFAULT_POLICY.clear_allowed(0x410, True)
    assert not DEFAULT_POLICY.clear_allowed(0x441, True, False)


def test_isolate_in_clear_without_a_session_only():
    assert [m.base for m in MESSAGES if DEFAULT_POLICY.clear_without_session(m.base)] == [0x51F]
    assert not DEFAULT_POLICY.clear_allowed(0x51F, True)


def test_what_is_not_in_the_table_is_neither_sealed_nor_taken():
    for base in (0, 0x3E0, 0x3F1, 0x3FF, 0x40C, 0x513, 0x7FF):
        assert DEFAULT_POLICY.class_of(base) == UNSEALABLE
        assert not DEFAULT_POLICY.is_sealable(base)
        assert not DEFAULT_POLICY.needs_citation(base)
        assert not DEFAULT_POLICY.clear_allowed(base, True)
        assert not DEFAULT_POLICY.clear_allowed(base, False)
    assert "0x3F1" in str(raises(PolicyError, DEFAULT_POLICY.check_sealable, 0x3F1))
    assert "announce" in str(raises(PolicyError, DEFAULT_POLICY.check_sealable, 0x500))
    DEFAULT_POLICY.check_sealable(0x502)


def test_digest_is_over_the_rows_in_order():
    rows = ((0x502, TELEMETRY, SEALABLE), (0x100, COMMAND, SEALABLE | CITED))
    text = b"packtrust policy v1" + b"\x01\x00\x03\x03" + b"\x05\x02\x02\x01"
    assert Policy(rows).digest == sha256(text).digest()
    assert Policy(((0x100, COMMAND, 3), (0x502, TELEMETRY, 1))).digest == Policy(rows).digest
    assert Policy(((0x100, COMMAND, 2), (0x502, TELEMETRY, 1))).digest != Policy(rows).digest


def test_digest_of_the_battery_s_policy():
    """Changes whenever a class or a flag does: then nodes of before and after do not meet."""
    assert "".join(["%02x" % byte for byte in DEFAULT_POLICY.digest]) == (
        "8bde1883a8c71b97d5c67b9ef6b658be8846ec7543e23a6424ccee861d0fa00d"
    )


def test_open_bus():
    policy = Policy.open_bus((0x120, 0x121), (0x130,))
    assert policy.class_of(0x100) == TELEMETRY
    assert policy.is_sealable(0x100)
    assert not policy.clear_allowed(0x100, True)
    assert policy.clear_allowed(0x100, False)
    assert policy.needs_citation(0x120) and policy.needs_citation(0x121)
    assert not policy.needs_citation(0x122)
    assert not policy.clear_allowed(0x120, False)
    assert not policy.is_sealable(0x130)
    assert policy.clear_allowed(0x130, True)
    for base in (0x433, 0x434, 0x531, 0x539):
        assert policy.class_of(base) == HANDSHAKE
        assert not policy.is_sealable(base)
    for base in (0x431, 0x432, 0x530, 0x538):
        assert policy.class_of(base) == TRANSPORT
    assert policy.digest != DEFAULT_POLICY.digest
    assert policy.digest == Policy.open_bus((0x121, 0x120), (0x130,)).digest
    assert policy.digest != Policy.open_bus((0x120,), (0x130,)).digest


def test_open_bus_keeps_the_rows_of_the_table():
    policy = Policy.open_bus()
    for base in (0x431, 0x432, 0x433, 0x434, 0x530, 0x531, 0x538, 0x539):
        assert policy.class_of(base) == DEFAULT_POLICY.class_of(base)
        for keyed in (False, True):
            assert policy.clear_allowed(base, keyed) == DEFAULT_POLICY.clear_allowed(base, keyed)


def test_open_bus_names_mistakes():
    assert "handshake" in str(raises(PolicyError, Policy.open_bus, (0x539,)))
    assert "11 bits" in str(raises(PolicyError, Policy.open_bus, (0x800,)))
    assert "11 bits" in str(raises(PolicyError, Policy.open_bus, (), (-1,)))
    both = Policy.open_bus((0x120,), (0x120,))
    assert "two classes" in str(raises(PolicyError, both.is_sealable, 0x120))


def test_profiles_by_name():
    assert profile("default") is DEFAULT_POLICY
    assert profile("legacy-vcu") is profile("legacy-vcu")
    assert profile("default", True) is profile("default", True)
    assert "no policy is named" in str(raises(PolicyError, profile, "nonsense"))


def test_each_profile_has_its_own_digest():
    digests = [profile(name, mixed).digest for name in ("default", "legacy-vcu") for mixed in (False, True)]
    assert len(set(digests)) == 4


def test_legacy_vcu_hears_two_11_bit_messages_more():
    policy = profile("legacy-vcu")
    assert [m.base for m in MESSAGES if policy.clear_lowers(m.base)] == [0x400, 0x405]
    assert not [m.base for m in MESSAGES if DEFAULT_POLICY.clear_lowers(m.base)]
    for message in MESSAGES:
        base = message.base
        assert policy.class_of(base) == DEFAULT_POLICY.class_of(base)
        assert policy.flags_of(base) & ~CLEAR_LOWERS == DEFAULT_POLICY.flags_of(base)
        for keyed in (False, True):
            for extended in (False, True):
                allowed = DEFAULT_POLICY.clear_allowed(base, keyed, extended)
                assert policy.clear_allowed(base, keyed, extended) == allowed


def test_on_a_mixed_bus_nothing_sealed_is_where_old_modules_listen():
    policy = profile("default", True)
    for base in range(0x800):
        if base >> 8 == 5:
            assert not policy.is_sealable(base)
            # What they may be told in clear is unchanged.
            assert policy.flags_of(base) == DEFAULT_POLICY.flags_of(base) & ~SEALABLE
        elif base >> 8 != 6:
            assert policy.flags_of(base) == DEFAULT_POLICY.flags_of(base)
            assert policy.class_of(base) == DEFAULT_POLICY.class_of(base)
    for message in MESSAGES:
        if message.bus != "module":
            continue
        moved = message.base + 0x100
        assert policy.is_sealable(moved) == message.is_sealable
        assert policy.flags_of(moved) & ~(SEALABLE | CITED) == 0  # never in clear
        if message.is_sealable:
            assert policy.class_of(moved) == message.message_class
            assert policy.needs_citation(moved) == DEFAULT_POLICY.needs_citation(message.base)


def test_flags_of_bases_that_were_asked_for_are_kept_and_not_more_than_some():
    policy = Policy([(message.base, message.message_class, message.base & 0xFF) for message in MESSAGES])
    known = set(message.base for message in MESSAGES)
    for base in list(range(0x800)) + list(range(0x7FF, -1, -1)):
        assert policy.flags_of(base) == (base & 0xFF if base in known else 0)
    assert 0 < len(policy._flags) < 32
