"""`packtrust verify` against modules on the virtual Cortex-M4: each backend there is right, wrong kernels are found.

Its heap has room for the backend in use and one more, so the others are loaded one after the other.
"""

from pathlib import Path

import pytest

from packtrust_host.sim import qemu
from packtrust_host.sim.deploy import CHECKOUT
from packtrust_host.sim.launcher import PackProcess
from packtrust_host.urls import open_bus
from packtrust_host.verify import BackendMissing, verify_node
from packtrust_host.verify_transport import discover

BACKENDS = [
    "thumb",
    "cryptolib",
    "viper",
    "viper-aligned",
    "viper-large",
    "cryptolib-aligned",
    "cryptolib-pure",
    "pure",
]
PLACE = "\n    c = m + 1\n"
# A wrong S-box: always, or only for texts of a length that the node's own known-answer test does not have.
ALWAYS = "    sb = ptr8(int(sb) + 1)\n"
SOMETIMES = "    if n == 16:\n        sb = ptr8(int(sb) + 1)\n"


def wrong_kernel(folder: Path, module: str, change: str) -> dict[str, str]:
    name = "crypto/%s.py" % module
    text = (CHECKOUT / "shared/packtrust" / name).read_text()
    assert text.count(PLACE) == 1
    file = folder / (module + ".py")
    file.write_text(text.replace(PLACE, PLACE + change))
    return {"lib/packtrust/" + name: str(file)}


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The module bus's URL, the node numbers of a module as it is and of one with two wrong kernels."""
    try:
        qemu.firmware("cryptolib")
    except qemu.QemuError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("kernels")
    wrong = {**wrong_kernel(folder, "gcm_viper", SOMETIMES), **wrong_kernel(folder, "gcm_viper_large", ALWAYS)}
    boards = {"module": "cortex-m4"}
    with PackProcess(modules=2, seed=5, boards=boards, overlays={"module2": wrong}, logs=False) as pack:
        url = "slcan:" + pack.adapter("module")
        found: list[int] = []
        with open_bus(url) as bus:
            for _ in range(30):  # until both have their numbers
                found = [item.node for item in discover(bus)]
                if len(found) == 2 and 0xFF not in found:
                    break
        assert len(found) == 2 and 0xFF not in found, found
        stats = pack.node_statistics()
        yield url, stats["module1"]["node"], stats["module2"]["node"]


def sealed(report):
    return {item.variant: item for item in report.operations if item.name == "AES-GCM seal"}


def test_every_backend_passes_with_the_cavp_sample(modules):
    url, right, _ = modules
    with open_bus(url) as bus:
        report = verify_node(bus, right, cases=2, seed=1)
    assert report.ok, report.failures
    assert report.info["platform"] == "qemu"
    assert report.info["word_bits"] == 32
    assert report.info["backends"] == BACKENDS
    for name in ("AES-GCM seal", "AES-GCM open"):
        rows = {item.variant: item for item in report.operations if item.name == name}
        assert list(rows) == BACKENDS
        assert all(row.ok and row.cavp == 16 for row in rows.values()), rows


def test_one_backend_by_name(modules):
    url, right, _ = modules
    with open_bus(url) as bus:
        report = verify_node(bus, right, cases=1, seed=1, backend="viper")
        with pytest.raises(BackendMissing, match="has no backend 'aesio'"):
            verify_node(bus, right, cases=1, seed=1, backend="aesio")
    assert report.ok, report.failures
    assert list(sealed(report)) == ["viper"]


def test_wrong_kernels_are_found(modules):
    url, _, wrong = modules
    with open_bus(url) as bus:
        report = verify_node(bus, wrong, cases=2, seed=1)
    assert {failure.variant for failure in report.failures} == {"viper", "viper-large"}
    # One fails the node's own known-answer test, the other passes it and is found by the vectors.
    disabled = [failure.cause for failure in report.failures if failure.variant == "viper-large"]
    assert len(disabled) == 1
    assert "the node disabled this backend: it failed its known-answer test" in disabled[0]
    by_vectors = [failure.case for failure in report.failures if failure.variant == "viper"]
    assert any(case.startswith("CAVP") for case in by_vectors), by_vectors
    assert all(row.ok for variant, row in sealed(report).items() if not variant.startswith(("viper", "viper-large")))
    assert sealed(report)["viper-aligned"].ok
