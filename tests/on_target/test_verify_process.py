"""`packtrust verify` against real MicroPython nodes: the firmware as it is, and with one bit flipped in one place."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from packtrust_host.app.keystore import KeyStore
from packtrust_host.app.transport import CanIsoTp
from packtrust_host.audit.log import HOST, AuditLogs
from packtrust_host.cli.verify import run_verify, verify
from packtrust_host.sim.deploy import CHECKOUT, find_micropython
from packtrust_host.sim.launcher import PackProcess
from packtrust_host.urls import open_bus
from packtrust_host.verify import VerifyReport, verify_bus, verify_node
from packtrust_host.verify_cases import OPERATIONS
from packtrust_host.verify_transport import discover

PATCH = """

def _patched(right):
    def wrong(arguments):
        result = right(arguments)
        return bytes(result[:-1]) + bytes((result[-1] ^ 1,)) if result else b"\\x01"
    return wrong


_OPERATIONS[wire.%(name)s] = _patched(_OPERATIONS[wire.%(name)s])
"""

# The report's operation, by the service's name of it: one patched module each.
SERVICE = {
    "HKDF": "HKDF",
    "SEAL": "AES-GCM seal",
    "OPEN": "AES-GCM open",
    "X25519": "X25519",
    "HPKE_SEAL": "HPKE seal",
    "HPKE_OPEN": "HPKE open",
    "FRAMING": "framing",
}

# One bit in a file of the core: (file on the flash, source, what is there, what the patch makes of it).
CORE = {
    "pure AES": (
        "lib/packtrust/crypto/aes_pure.py",
        "shared/packtrust/crypto/aes_pure.py",
        "    sbox[0] = 0x63\n",
        "    sbox[0] = 0x62\n",
    ),
    "curve": (
        "lib/packtrust/crypto/curve25519.py",
        "shared/packtrust/crypto/curve25519.py",
        # Past the known-answer test, which disables a form that computes wrongly: the scalar loses its highest bit.
        "clamped[31] & 127 | 64",
        "clamped[31] & 63",
    ),
    "record": (
        "lib/packtrust/record.py",
        "shared/packtrust/record.py",
        "self._aad[5] = direction",
        "self._aad[5] = direction ^ 1",
    ),
}

NAMES = ["as it is", *SERVICE, *CORE]


class Nodes:
    """The running pack, which module is which, and each one's verdict (asked once)."""

    def __init__(self, pack: PackProcess) -> None:
        self.pack = pack
        self._reports: dict[str, VerifyReport] = {}
        with open_bus("slcan:" + pack.adapter("module")) as bus:
            # All have their numbers when none answers as 0xFF any more.
            found: list[int] = []
            for _ in range(30):
                found = [item.node for item in discover(bus)]
                if len(found) == len(NAMES) and 0xFF not in found:
                    break
            assert len(found) == len(NAMES), found
        stats = pack.node_statistics()
        self.numbers = {name: stats["module%d" % index]["node"] for index, name in enumerate(NAMES, 1)}

    def verdict(self, name: str) -> VerifyReport:
        if name not in self._reports:
            with open_bus("slcan:" + self.pack.adapter("module")) as bus:
                # What is wrong in no backend shows with the one in use.
                in_use = name in SERVICE or name in ("curve", "record")
                self._reports[name] = verify_node(bus, self.numbers[name], cases=1, in_use=in_use)
        return self._reports[name]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("overlays")
    overlays: dict[str, dict[str, str]] = {}
    service = (CHECKOUT / "firmware/packtrust_node/testservice.py").read_text()
    for index, name in enumerate(NAMES, 1):
        if name in SERVICE:
            patched = folder / (name + ".py")
            patched.write_text(service + PATCH % {"name": name})
            overlays["module%d" % index] = {"packtrust_node/testservice.py": str(patched)}
        elif name in CORE:
            target, source, old, new = CORE[name]
            text = (CHECKOUT / source).read_text()
            assert old in text
            patched = folder / (name + ".py")
            patched.write_text(text.replace(old, new))
            overlays["module%d" % index] = {target: str(patched)}
    with PackProcess(modules=len(NAMES), seed=5, overlays=overlays, logs=False) as pack:
        yield Nodes(pack)


def test_the_firmware_as_it_is(nodes: Nodes) -> None:
    report = nodes.verdict("as it is")
    assert report.ok, report.failures
    assert report.info["implementation"] == "micropython"
    assert "pure" in report.info["backends"]
    assert {item.name for item in report.operations} == set(OPERATIONS)
    assert all(item.median_us and item.max_us for item in report.operations)


@pytest.mark.parametrize("name", SERVICE)
def test_a_flipped_bit_in_one_operation(nodes: Nodes, name: str) -> None:
    report = nodes.verdict(name)
    assert not report.ok
    assert {failure.operation for failure in report.failures} == {SERVICE[name]}
    assert all(item.ok for item in report.operations if item.name != SERVICE[name])


def test_a_flipped_bit_in_the_pure_aes(nodes: Nodes) -> None:
    """The node's own known-answer test disables that backend; the verdict says so."""
    report = nodes.verdict("pure AES")
    assert not report.ok
    assert {failure.variant for failure in report.failures} == {"pure"}
    assert "disabled" in report.failures[0].cause


def test_a_flipped_bit_in_the_curve(nodes: Nodes) -> None:
    report = nodes.verdict("curve")
    assert {failure.operation for failure in report.failures} == {"X25519", "HPKE seal", "HPKE open"}


def test_a_flipped_bit_in_the_record(nodes: Nodes) -> None:
    report = nodes.verdict("record")
    assert {failure.operation for failure in report.failures} == {"framing"}


def test_the_pack_and_the_can_isotp_library(nodes: Nodes) -> None:
    with open_bus("slcan:" + nodes.pack.adapter("vcu")) as bus:
        reports = verify_bus(bus, cases=1, make_link=CanIsoTp)
    assert [report.node for report in reports] == ["pack 0"]
    assert reports[0].ok, reports[0].failures


app = typer.Typer()
app.command()(verify)


def packtrust_verify(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160", "XDG_DATA_HOME": "/nonexistent"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_command_on_a_bus(nodes: Nodes) -> None:
    url = "slcan:" + nodes.pack.adapter("module")
    good, bad = nodes.numbers["as it is"], nodes.numbers["HKDF"]
    code, out, _ = packtrust_verify("--can", url, "--node", "module%d" % good, "--cases", "1", "--seed", "7", "--json")
    shown = json.loads(out)
    assert (code, shown["ok"], shown["nodes"][0]["seed"]) == (0, True, 7)
    code, out, _ = packtrust_verify("--can", url, "--node", str(bad), "--cases", "1", "--seed", "7")
    assert code == 1
    assert "WRONG" in out
    assert "wrong: HKDF: RFC 5869 A.1: differs from the right answer" in out
    assert "do not use this firmware" in out


def test_verdicts_are_in_the_audit_log_of_the_key_store_there_is(nodes: Nodes, tmp_path: Path) -> None:
    url = "slcan:" + nodes.pack.adapter("module")
    arguments = ["--can", url, "--cases", "1", "--seed", "7", "--store", str(tmp_path / "keys"), "--unlock", "none"]
    good, bad = "module%d" % nodes.numbers["as it is"], "module%d" % nodes.numbers["HKDF"]
    assert packtrust_verify(*arguments, "--node", good)[0] == 0
    assert not (tmp_path / "keys").exists(), "none is made for it"
    KeyStore(tmp_path / "keys").close()
    assert packtrust_verify(*arguments, "--node", good)[0] == 0
    assert packtrust_verify(*arguments, "--node", bad)[0] == 1
    keys = KeyStore(tmp_path / "keys")
    logs = AuditLogs(keys)
    first, second = logs.entries(HOST)
    assert (first["what"], first["ok"], first["failed"], first["wrong"]) == ("verified", True, 0, [])
    assert (second["what"], second["ok"], second["wrong"]) == ("verified", False, ["HKDF"])
    assert second["failed"] > 0 and second["node"] != first["node"]
    assert {(item["bus"], item["seed"], item["implementation"]) for item in (first, second)} == {
        (url, 7, "micropython")
    }
    assert logs.verify(HOST).ok


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--can", "nonsense"], "names no CAN bus"),
        (["--can", "slcan:/dev/no-such-adapter"], "cannot open slcan:/dev/no-such-adapter"),
        (["--node", "pack99"], "names no node"),
    ],
)
def test_command_says_what_is_wrong(arguments: list[str], says: str) -> None:
    code, _, err = packtrust_verify(*arguments)
    assert code == 1
    assert says in err
    assert "Traceback" not in err


def test_command_on_a_silent_node(nodes: Nodes) -> None:
    code, _, err = packtrust_verify("--can", "slcan:" + nodes.pack.adapter("vcu"), "--node", "pack7")
    assert code == 1
    assert "pack 7 did not answer a test request within 3 s. Next: check that it is powered" in err


def test_command_without_a_bus_starts_virtual_nodes() -> None:
    reports = run_verify(cases=1)
    assert [report.node for report in reports] == ["pack 0", "module 1"]
    assert all(report.ok for report in reports)


def test_a_missing_interpreter_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MICROPYTHON", str(tmp_path / "none"))
    assert find_micropython() == str(tmp_path / "none")
    code, _, err = packtrust_verify("--cases", "1")
    assert code == 1
    assert "cannot start" in err


def test_keyed_node_refuses(nodes: Nodes) -> None:
    """A node that says it has keys (its start.py is made to) refuses over the bus, and the command says what to do."""
    pack = nodes.pack
    service = Path(pack.info["nodes"]["module1"]["flash"]) / "packtrust_node/start.py"
    text = service.read_text()
    keyed = text.replace("lambda: bool(node.relations)", "lambda: True")
    assert keyed != text
    service.write_text(keyed)
    pack.restart("module1")
    with open_bus("slcan:" + pack.adapter("module")) as bus:
        number = next(item.node for _ in range(20) for item in discover(bus) if item.keyed and item.node != 0xFF)
    code, _, err = packtrust_verify("--can", "slcan:" + pack.adapter("module"), "--node", str(number))
    assert code == 1
    assert "the node has keys: its test service is closed until it is reset" in err
    assert "reset it at its console" in err
    service.write_text(text)
    pack.restart("module1")
