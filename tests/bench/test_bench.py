"""The benchmarks run and store what they promise; how fast this machine is, is nobody's business here."""

import pytest


def names(document: dict, interpreter: str) -> set[tuple[str, str]]:
    return {(item["name"], item["backend"]) for item in document["interpreters"][interpreter]["results"]}


@pytest.mark.parametrize(
    ("interpreter", "backends"), [("cpython", {"cryptography", "pure"}), ("micropython", {"cryptolib", "pure"})]
)
def test_every_operation_is_there(document: dict, interpreter: str, backends: set[str]) -> None:
    found = names(document, interpreter)
    for what in ("seal", "open", "Channel.seal", "Channel.feed"):
        for size in (8, 64):
            assert {("%s %d bytes" % (what, size), backend) for backend in backends} <= found
    for what in ("HKDF 32 bytes", "X25519", "HPKE AuthPSK open 300 bytes"):
        assert any(name == what for name, _ in found), what
    assert all(item["us"] > 0 for item in document["interpreters"][interpreter]["results"])


def test_bus_and_start(document: dict) -> None:
    bus = document["bus"]
    assert len(bus) == 4
    assert all(item["frames_per_second"] > 0 for item in bus)
    # 8 bytes and a 29-bit ID: 131 bits and the stuff bits of this very frame, 3 bits of intermission.
    virtual = {item["name"]: item["frames_per_bus_second"] for item in bus if "times_real_time" in item}
    assert virtual["virtual time, 1000 kbit/s"] == pytest.approx(2 * virtual["virtual time, 500 kbit/s"], rel=0.01)
    assert 500_000 / 160 < virtual["virtual time, 500 kbit/s"] < 500_000 / 131
    seconds = document["start"]["seconds"]
    assert list(seconds.values()) == sorted(seconds.values())
    assert seconds["first sealed record"] > seconds["nodes up"] > 0
