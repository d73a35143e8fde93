"""README and docs: every command in them is run by a test, links lead somewhere, the wire page is complete."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

README = "tests/pack/test_readme.py::"
DEPLOY = "tests/on_target/test_deploy_boards.py::"

# Every command line of README and docs, and the test that runs it. A command that is not here fails this file's test;
# so does one here that no page has any more, or whose test does not exist.
AUDIT = "tests/unit/host/test_audit_cli.py::"
COMMANDS = {
    "make demo": README + "test_make_demo",
    "make test": README + "test_make_test",
    "make bench": "tests/bench/test_bench.py::test_bus_and_start",
    "make bench ARGS=--record": "tests/bench/test_budgets.py::test_recorded_figures_are_read_back",
    'make bench ARGS="--flood 168"': "tests/bench/test_flood.py::test_a_module_bears_a_full_bus_of_forged_frames",
    "make generate": "tests/unit/host/test_tooling_make.py::test_generated_files_are_up_to_date",
    "make firmware": "tests/unit/host/test_tooling_make.py::test_firmware_is_built_once",
    "packtrust demo --board pack=unix --board module=unix,cortex-m4,unix": (
        "tests/pack/test_demo_boards.py::test_a_unix_pack_with_modules_of_both_kinds"
    ),
    "packtrust demo --board all=cortex-m4 --modules 2": ("tests/pack/test_demo_boards.py::test_a_pack_all_on_boards"),
    "packtrust demo --board pack=cortex-m4 --modules 31": (
        "tests/pack/test_demo_boards.py::test_a_pack_on_a_board_with_as_many_modules_as_there_may_be"
    ),
    "packtrust --policy legacy-vcu grant --state On --for 600": (
        "tests/pack/test_cli_processes.py::test_an_old_vcu_on_a_mixed_bus"
    ),
    "packtrust monitor --json": "tests/pack/test_cli_processes.py::test_a_virtual_pack_by_hand",
    "packtrust pack --mixed-bus": "tests/pack/test_cli_processes.py::test_an_old_vcu_on_a_mixed_bus",
    "packtrust demo --fd": "tests/pack/test_demo_processes.py::test_demo_on_can_fd",
    "packtrust pack --board module1=cortex-m4": (
        "tests/pack/test_demo_boards.py::test_a_pack_on_the_command_line_starts_a_board"
    ),
    "make model": "tests/model/test_model.py::test_the_command_says_what_it_has_searched",
    'make model ARGS="--quick"': "tests/model/test_model.py::test_the_command_says_what_it_has_searched",
    "make attacks": "tests/pack/test_tables.py::test_attacks_are_printed_with_their_controls",
    "make defences": "tests/pack/test_tables.py::test_a_defence_taken_out_turns_something_red",
    "make faults": "tests/pack/test_tables.py::test_faults_are_printed_with_what_came_of_them",
    "make fuzz": "tests/fuzz/test_run.py::test_a_parser_is_fuzzed_and_measured",
    'make fuzz ARGS="--seconds 164 --jobs 1"': "tests/fuzz/test_run.py::test_a_parser_is_fuzzed_and_measured",
    'make fuzz ARGS="--only channel --seconds 600"': "tests/fuzz/test_run.py::test_a_parser_is_fuzzed_and_measured",
    "packtrust release MODBATT-MOD-RC001-003": README + "test_release_to_another_owner",
    "packtrust release --all": README + "test_release_to_another_owner",
    "packtrust claim add MODBATT-MOD-RC001-003": README + "test_release_to_another_owner",
    "make help": "tests/unit/host/test_tooling_make.py::test_help_lists_every_target",
    "packtrust pack --modules 3": README + "test_pack_shows_its_adapters",
    "packtrust pack": README + "test_pack_shows_its_adapters",
    "packtrust pack --json": README + "test_faults_through_the_control_socket",
    "packtrust demo": README + "test_make_demo",
    "packtrust demo --modules 31": "tests/pack/test_demo_processes.py::test_demo_with_31_modules",
    "packtrust demo --cells FILE.csv": README + "test_demo_with_a_recording",
    "packtrust bridge": README + "test_provision",  # its session starts it
    "packtrust audit collect": "tests/pack/test_cli_processes.py::test_a_virtual_pack_by_hand",
    "packtrust audit collect --clear-signs": "tests/pack/test_cli_processes.py::test_a_virtual_pack_by_hand",
    "packtrust audit show": AUDIT + "test_show",
    "packtrust audit verify": AUDIT + "test_verify_an_honest_log",
    "packtrust audit export DIR": AUDIT + "test_export_and_verify_elsewhere_without_the_key_store",
    "packtrust audit verify --bundle DIR --key KEY --checkpoint FILE": (
        AUDIT + "test_export_and_verify_elsewhere_without_the_key_store"
    ),
    "packtrust audit restart": AUDIT + "test_restart",
    "packtrust audit restart LOG --reason TEXT": AUDIT + "test_restart",
    "packtrust keystore info": "tests/unit/host/test_app_unlock.py::test_keystore_info_and_passphrase",
    "packtrust keystore passphrase": "tests/unit/host/test_app_unlock.py::test_keystore_info_and_passphrase",
    "packtrust claim add": "tests/unit/host/test_cli_commands.py::test_claim_codes_are_kept_and_never_shown",
    "packtrust provision": README + "test_provision",
    "packtrust monitor": README + "test_monitor",
    "packtrust validate": README + "test_validate",
    "packtrust rotate": README + "test_rotate",
    "packtrust rotate --show": README + "test_rotate",
    "packtrust rotate --all": README + "test_rotate",
    "packtrust rotate --lct ID": README + "test_rotate",
    "packtrust verify --can ...": README + "test_verify",
    "packtrust dbc": README + "test_dbc",
    "packtrust monitor --key-log FILE": README + "test_monitor",
    "packtrust demo --key-log FILE": README + "test_make_demo",
    "can_logger -i slcan -c PATH": README + "test_can_logger",
    'can_logger -i packtrust -c "slcan:PATH?key_log=FILE"': (
        "tests/pack/test_tools.py::test_who_holds_the_key_log_reads_along_with_can_logger_and_cantools"
    ),
    'cantools monitor -i packtrust -c "slcan:PATH?key_log=FILE" docs/packtrust.dbc': (
        "tests/pack/test_tools.py::test_cantools_monitor_shows_opened_messages"
    ),
    "can_logger -i slcan -c PATH -b 500000": README + "test_can_logger",
    "can_viewer -i slcan -c PATH -b 500000": README + "test_can_viewer",
    "can_player -i slcan -c PATH -b 500000 FILE": README + "test_can_player",
    "can_viewer": README + "test_can_viewer",
    "can_player": README + "test_can_player",
    "cantools decode": "tests/pack/test_tools.py::test_can_logger_records_the_bus_and_cantools_shows_the_clear_frames",
    "packtrust board start unix": DEPLOY + "test_board_list_shows_it",
    "packtrust board start cortex-m4": DEPLOY + "test_first_deploy_fills_the_board_and_stores_its_claim_code",
    "packtrust board list": DEPLOY + "test_board_list_shows_it",
    "packtrust board power-cycle unix": DEPLOY + "test_it_comes_back_after_a_power_cycle",
    "mpremote connect CONSOLE fs ls": DEPLOY + "test_mpremote_files",
    "packtrust deploy cortex-m4": DEPLOY + "test_first_deploy_fills_the_board_and_stores_its_claim_code",
    "packtrust deploy unix": DEPLOY + "test_second_deploy_copies_nothing_and_says_so",
    "packtrust deploy unix --json": DEPLOY + "test_second_deploy_copies_nothing_and_says_so",
    "packtrust deploy unix --dry-run": DEPLOY + "test_dry_run_changes_nothing",
    "packtrust flash BOARD FIRMWARE": "tests/unit/host/test_flash.py::test_esptool_writes_and_verifies",
    "python3 examples/two_nodes/sensor.py & python3 examples/two_nodes/display.py": (
        "tests/on_target/test_example_two_nodes.py::test_two_nodes_talk"
    ),
}

# What starts a command line. One of these words alone is a command too, unless it is a name more often.
TOOLS = (
    "make",
    "packtrust",
    "can_logger",
    "can_viewer",
    "can_player",
    "cantools",
    "python3",
    "micropython",
    "mpremote",
)
NAMES_ONLY = {"packtrust", "make", "cantools", "python3", "micropython", "mpremote"}

# Labels of the key derivation, in docs/wire.md.
LABEL = re.compile(r"packtrust (policy )?v1\b")


def indented(text: str) -> list[str]:
    """Lines of indented code blocks: those after an empty line, four spaces in."""
    found, inside, empty = [], False, True
    for line in text.splitlines():
        is_code = line.startswith("    ")
        inside = is_code and (inside or empty)
        if inside:
            found.append(line.strip())
        empty = not line.strip()
    return found


def commands(text: str) -> set[str]:
    """Every command line of a page."""
    found = set()
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in fenced for line in block.splitlines()] + indented(prose)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    for line in lines + spans:
        line = re.sub(r"^[$#] ", "", line).strip()
        line = re.sub(r"\s+# .*$", "", line)  # a comment
        word = line.split(" ", 1)[0] if line else ""
        if LABEL.match(line):
            continue
        if word in TOOLS and not (line in NAMES_ONLY and line not in ("can_viewer", "can_player")):
            found.add(line)
    return found


def on_pages() -> dict[str, str]:
    """Command -> the page it is on."""
    return {command: page.name for page in PAGES for command in sorted(commands(page.read_text()))}


def test_the_extraction_sees_every_form() -> None:
    page = "Run `make x` or:\n\n    packtrust pack --modules 3\n\nnot `packtrust.Channel`, nor `python3`.\n\n"
    page += "```sh\n$ can_viewer\n```\n"
    assert commands(page) == {"make x", "packtrust pack --modules 3", "can_viewer"}


def test_every_command_is_run_by_a_test() -> None:
    missing = {command: page for command, page in on_pages().items() if command not in COMMANDS}
    assert not missing, "commands no test is known to run: add the test, then name it in COMMANDS: %s" % missing


def test_no_entry_is_left_over() -> None:
    assert set(COMMANDS) - set(on_pages()) == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_test_exists(command: str) -> None:
    path, _, name = COMMANDS[command].partition("::")
    assert re.search(r"^def %s\(" % name, (ROOT / path).read_text(), re.MULTILINE), COMMANDS[command]


def test_links_lead_somewhere() -> None:
    spec = importlib.util.spec_from_file_location("check_docs", ROOT / "tools" / "check_docs.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    pages = tool.pages(ROOT)
    assert ROOT / "README.md" in pages
    assert [line for page in pages for line in tool.broken(page, ROOT)] == []


# -- docs/wire.md

WIRE = (ROOT / "docs" / "wire.md").read_text()


def section(number: int) -> str:
    """A section of docs/wire.md."""
    found = re.search(r"^## %d\. .*?(?=^## |\Z)" % number, WIRE, re.MULTILINE | re.DOTALL)
    assert found, number
    return found.group()


def rows(text: str) -> dict[int, str]:
    """First two columns of the tables in a text whose first is a number."""
    found = re.findall(r"^\| (0x[0-9A-F]+|\d+) \| ([A-Z0-9_]+) \|", text, re.MULTILINE)
    return {int(number, 0): name for number, name in found}


def numbers(module: str, names: list[str]) -> dict[int, str]:
    loaded = importlib.import_module(module)
    return {getattr(loaded, name): name for name in names}


def test_every_provisioning_message_is_on_the_wire_page() -> None:
    kinds = "IDENTIFY IDENTITY PACKAGE RECEIPT PAIRED COMMIT COMMITTED ABORT ABORTED PROVE PROOF LIST MODULES ATTEST"
    kinds += " ATTESTATION CLEAR PAIR STATUS REPORT AUDIT AUDIT_PART CLEAR_SIGNS SIGNS_CLEARED REFUSED"
    assert numbers("packtrust.provision", kinds.split()) == rows(section(7))
    # And the other way: no constant of provision.py that could be a message is left out here.
    source = (ROOT / "shared/packtrust/provision.py").read_text()
    messages = {name for name, _ in re.findall(r"^([A-Z_]+) = const\((0x[0-9A-F]{2})\)", source, re.MULTILINE)}
    assert messages == set(kinds.split())


def test_every_test_service_operation_is_on_the_wire_page() -> None:
    names = ["INFO", "HKDF", "SEAL", "OPEN", "X25519", "HPKE_SEAL", "HPKE_OPEN", "FRAMING"]
    known = numbers("packtrust.testwire", names)
    assert known == rows(section(8))
    wire = importlib.import_module("packtrust.testwire")
    assert set(known) == set(wire.ARGUMENTS)
    for base in (wire.TO_MODULE, wire.FROM_MODULE, wire.TO_PACK, wire.FROM_PACK):
        assert "0x%03X" % base in section(8)
    for status in wire.STATUSES:
        assert re.search(r"\b%d [a-z]" % status, section(8)), status


def test_every_handshake_message_is_on_the_wire_page() -> None:
    pages = {5: ["OFFER", "ANSWER", "CONFIRM", "AGREED"], 6: ["HELLO", "REPLY", "FINISH"]}
    for number, names in pages.items():
        for value, name in numbers("packtrust.handshake", names).items():
            assert re.search(r"^ +%s +=\s+0x%02X\b" % (name, value), section(number), re.MULTILINE), name
    source = (ROOT / "shared/packtrust/handshake.py").read_text()
    kinds = re.findall(r"^([A-Z_]+) = const\(0x[0-9A-F]{2}\)", source, re.MULTILINE)
    assert sorted(kinds) == sorted(pages[5] + pages[6])


def test_every_derivation_label_is_on_the_wire_page() -> None:
    labels = set()
    for path in (ROOT / "shared" / "packtrust").glob("*.py"):
        labels |= set(re.findall(r'b"(packtrust v1 [a-z ]+)"', path.read_text()))
    assert len(labels) >= 4
    for label in labels:
        assert label.strip() in WIRE, label
