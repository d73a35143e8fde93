"""Clear frames where secrecy is due are refused, counted and reported; what may be asked is a list, and no more."""

from nodebench import MODULE_BUS, PACK_NODE, VCU_BUS, clear_frame, keyed_bench
from packtrust import package, provision
from packtrust.frame import Frame
from packtrust.messages import MESSAGES, by_name, encode
from packtrust.messages.table import ASK_COUNTERS, RESULT_REFUSED, STATE_ON
from packtrust.policy import COMMAND, CONFIG, DEFAULT_POLICY, HEARTBEAT, REGISTRATION, TELEMETRY
from packtrust_node.commands import REASON_SCOPE, REASON_VALUE

DUE = (TELEMETRY, COMMAND, CONFIG, REGISTRATION, HEARTBEAT)


def diagnostics(bench, app):
    """The pack's newest report, made after now."""
    app.values.pop("PACK_DIAGNOSTICS", None)
    app.seal("DIAGNOSTICS_REQUEST", what=ASK_COUNTERS)
    bench.until(lambda: "PACK_DIAGNOSTICS" in app.values, 1000)
    return app.values["PACK_DIAGNOSTICS"]


def test_the_app_is_told_what_the_pack_refused_in_clear():
    bench, app = keyed_bench(2)
    before = diagnostics(bench, app)["clear_refused"]
    sent = 0
    for message in MESSAGES:
        if message.direction == "V>P" and message.message_class in DUE:
            data = bytes(message.dlc)
            bench.inject(VCU_BUS, Frame(message.base << 18 | PACK_NODE, data))
            sent += 1
            if not message.is_extended:
                bench.inject(VCU_BUS, Frame(message.base, data, False))
                sent += 1
        elif message.direction == "M>P" and message.message_class in DUE:
            bench.inject(MODULE_BUS, Frame(message.base << 18 | 1, bytes(message.dlc)))
            sent += 1
    assert sent > 20
    assert diagnostics(bench, app)["clear_refused"] == before + sent
    bench.sound()


def test_the_app_is_told_what_the_modules_refused_in_clear():
    bench, app = keyed_bench(2)
    before = diagnostics(bench, app)["clear_refused"]
    sent = 0
    for message in MESSAGES:
        if message.direction == "P>M" and message.message_class in (COMMAND, CONFIG, HEARTBEAT):
            for node in (1, 2):
                bench.inject(MODULE_BUS, Frame(message.base << 18 | node, bytes(message.dlc)))
                sent += 1
    bench.run(1000)  # a poll of each, and what it answers
    shown = diagnostics(bench, app)["clear_refused"]
    # Each is refused by its module; the pack, whose words they are, hears them too, and says so otherwise.
    assert sum([bench.nodes[name].counters["clear"] for name in ("module0", "module1")]) == sent
    assert shown >= before + sent


def test_a_module_that_starts_anew_is_not_counted_twice():
    bench, _ = keyed_bench(1)
    for _ in range(5):
        bench.inject(MODULE_BUS, clear_frame("STATE_CHANGE", 1, state=STATE_ON))
    bench.run(500)
    shown = bench.nodes["pack"].broadcast.refused_clear
    assert shown == 5
    module = bench.boot("module0")
    bench.until(lambda: module._group is not None, 5000)
    for _ in range(2):
        bench.inject(MODULE_BUS, clear_frame("STATE_CHANGE", 1, state=STATE_ON))
    bench.run(500)
    assert bench.nodes["pack"].broadcast.refused_clear == 7


def test_records_that_are_refused_are_reported_by_reason():
    bench, app = keyed_bench(1)
    module = bench.nodes["module0"]
    recorded = []
    bench.spy = lambda bus, sender, frame: recorded.append((sender, frame.copy())) if bus == MODULE_BUS else None
    bench.run(500)
    bench.spy = None
    bench.run(100)
    before = diagnostics(bench, app)
    records = [frame for sender, frame in recorded if sender == "module0" and frame.arbitration_id & 0x20000]
    for frame in records:
        bench.inject(MODULE_BUS, frame)
    for frame in records[:5]:
        data = bytearray(frame.data)
        data[0] ^= 0xFF
        bench.inject(MODULE_BUS, Frame(frame.arbitration_id, bytes(data)))
    after = diagnostics(bench, app)
    assert after["replays"] > before["replays"] and after["unknown_sessions"] == before["unknown_sessions"] + 1
    # What a module refuses: the pack's records, played again.
    for sender, frame in recorded:
        if sender == "pack" and frame.arbitration_id & 0x20000:
            bench.inject(MODULE_BUS, frame)
    bench.run(1000)
    assert module.counters["replay"] + module.counters.get("old", 0) > 0
    assert diagnostics(bench, app)["others_refused"] > before["others_refused"]


# -- the allow-list ----------------------------------------------------------------------------------------------------

ANSWERED = {
    provision.IDENTIFY: provision.IDENTITY,
    provision.PROVE: provision.PROOF,
    provision.LIST: provision.MODULES,
    provision.ATTEST: provision.ATTESTATION,
}


def test_what_anybody_may_ask_is_a_list():
    """Every kind of provisioning message there could be, with bodies somebody may guess: answered or refused."""
    bench, app = keyed_bench(1)
    for kind in range(256):
        for body in (b"", bytes(16)):
            sequence = app.post(PACK_NODE, kind, body)
            bench.run(60)
            answers = [message for message in app.messages if message.sequence == sequence]
            del app.messages[:]
            for answer in answers:
                if answer.kind == provision.REFUSED:
                    assert answer.body[0] == kind
                else:
                    assert answer.kind == ANSWERED.get(kind, kind + 1) and kind in OPEN, kind
    bench.sound()


# Answered without proof of who asks: nothing secret in them (tests/attacks holds every answer against every key).
OPEN = (provision.IDENTIFY, provision.PROVE, provision.LIST, provision.ATTEST, provision.STATUS)


def test_registers_are_denied_but_for_the_packs_number():
    bench, app = keyed_bench(1)
    for register in range(256):
        del app.results[:]
        app.values.pop("EEPROM_DATA", None)
        app.seal("READ_EEPROM", register=register)
        bench.run(5)
        if register == 3:
            assert app.values["EEPROM_DATA"] == {"register": 3, "value": 0}
        else:
            assert "EEPROM_DATA" not in app.values
            assert [result[2:4] for result in app.results] == [(RESULT_REFUSED, REASON_VALUE)]
    for register in range(0, 256, 15):
        del app.results[:]
        app.seal("WRITE_EEPROM", register=register, value=1)
        bench.run(5)
        assert [result[2:4] for result in app.results] == [(RESULT_REFUSED, REASON_VALUE)]


def test_without_its_scope_an_app_asks_in_vain():
    bench, app = keyed_bench(1, package.SCOPE_STATE)
    for name, values in (
        ("READ_EEPROM", {"register": 3}),
        ("WRITE_EEPROM", {"register": 3}),
        ("DIAGNOSTICS_REQUEST", {"what": ASK_COUNTERS}),
        ("DIAGNOSTICS_REQUEST", {"module_id": 1, "what": 2}),
        ("TIME", {"time_s": 1}),
    ):
        del app.results[:]
        app.seal(name, **values)
        bench.run(50)
        assert [result[2:4] for result in app.results] == [(RESULT_REFUSED, REASON_SCOPE)], name


def refused(pack):
    return pack.counters.get("unsupported", 0) + pack.counters.get("rotation", 0)


def test_a_message_nobody_listed_is_denied():
    """Default deny: sealed bases the pack has no rule for do nothing, whatever scope the app has."""
    bench, app = keyed_bench(1)
    known = ("COMMAND", "TIME", "READ_EEPROM", "WRITE_EEPROM", "MODULE_COMMAND", "KEEP_ALIVE", "REQUEST_MODULE_LIST")
    known += ("LIMITS_COMMAND", "DIAGNOSTICS_REQUEST", "LEGACY_GRANT")
    pack = bench.nodes["pack"]
    tried = 0
    for message in MESSAGES:
        if message.is_sealable and message.name not in known:
            before = refused(pack)
            for frame in app.channel.seal(message.base << 18 | PACK_NODE, bytes(message.dlc)):
                app.send(frame)
            bench.run(5)
            assert refused(pack) == before + 1, message.name
            tried += 1
    assert tried > 30 and DEFAULT_POLICY.is_sealable(by_name("STATUS_1").base)
    assert bytes(encode("KEEP_ALIVE", {})) == bytes(8)
