"""What holds for every test: markers from folders, skips that must explain themselves, and scratch files in memory."""

import gc
import os
import re
import resource
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from packtrust_host import hardening

# Other tests share the processors: how long an example takes says nothing.
settings.register_profile("packtrust", deadline=None, print_blob=True)
settings.load_profile("packtrust")

# The project's own plugin (host/pytest_micropython_boards) for tests/hil, and pytest's for the plugin's own tests.
pytest_plugins = ["pytest_micropython_boards.plugin", "pytester"]

TESTS = Path(__file__).resolve().parent
ALLOWED = "allowed:"

# Commands that tests start have nobody who types a passphrase; tests of passphrases say what they want.
os.environ["PACKTRUST_UNLOCK"] = "none"

_MEMORY = Path("/dev/shm")
_MEMORY_LEAST = 1 << 30


def scratch_in_memory() -> None:
    """Let temporary folders lie in memory, where there is room for them: $TMPDIR, unless somebody has set it.

    Key stores and audit logs are flushed after every step, which takes some milliseconds on a disk: half of the time of
    some tests. What they prove about files holds on any file system.
    """
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK | os.X_OK):
        return
    found = os.statvfs(_MEMORY)
    if found.f_bavail * found.f_frsize < _MEMORY_LEAST or found.f_flag & os.ST_NOEXEC:
        return
    if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < _MEMORY_LEAST:
        return
    os.environ["TMPDIR"] = str(_MEMORY)
    tempfile.tempdir = None  # found anew


scratch_in_memory()


class _LimitsOfTests:
    """Stands for `resource` in packtrust_host.hardening. Commands that tests run within their own process would lower
    its hard limit for good, and so that of each process started by the tests that come after.
    """

    RLIMIT_CORE = resource.RLIMIT_CORE

    @staticmethod
    def setrlimit(which: int, limits: tuple[int, int]) -> None:
        """Lower the soft limit alone."""
        resource.setrlimit(which, (limits[0], resource.getrlimit(which)[1]))


@pytest.fixture(autouse=True, scope="session")
def _limits_can_be_raised_again() -> Generator[None, None, None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardening, "resource", _LimitsOfTests)
        yield


# Markers that are written in the files whose tests have them; others come from folders.
_WRITTEN = ("alone", "realtime")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m alone` and the like, files that have no such test are not read: reading all takes some seconds."""
    marker = str(config.option.markexpr).partition(" ")[0]
    if marker not in _WRITTEN or not re.fullmatch(r"test_\w+\.py", collection_path.name):
        return None
    return True if "mark.%s" % marker not in collection_path.read_text() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of the folder it lies in: `-m pack` and the like select folders. And put what takes
    long first: of several workers none has much left when the others have done.
    """
    for item in items:
        if item.path.is_relative_to(TESTS):
            parts = item.path.relative_to(TESTS).parts
            if len(parts) > 1:
                item.add_marker(parts[0])
    items.sort(key=lambda item: _turn(item.nodeid))


# What takes long, the longest first.
_LONG = (
    "on_target/test_micropython.py::test_on_micropython[cortex-m4",
    "on_target/test_deploy",
    "bench/",
    "pack/test_memory",
    "unit/host/test_rom.py",
    "pack/",
    "on_target/",
    "hil/",
    "fuzz/",
    "model/",
)
# Files whose tests take long and have nothing in common that would be made for each worker.
_SINGLY = (
    "fuzz/test_replay.py",
    "model/test_model.py",
    "pack/test_cli_processes.py",
    "pack/test_demo_boards.py",
    "pack/test_memory_nodes.py",
)


def _turn(nodeid: str) -> int:
    return next((at for at, start in enumerate(_LONG) if nodeid.startswith("tests/" + start)), len(_LONG))


# Files with a fixture in common that takes long.
_TOGETHER = ("bench/test_bench.py", "bench/test_budgets.py", "bench/test_refused.py")


def unit_of(nodeid: str) -> str:
    """What one worker does in one go: the tests of a file, of some files, or of one file on one interpreter."""
    path, _, name = nodeid.partition("::")
    if path == "tests/on_target/test_micropython.py":
        return path + "::" + "-".join(name.split("-test_")[:2])
    if path.removeprefix("tests/") in _TOGETHER:
        return "tests/bench"
    return nodeid if path.removeprefix("tests/") in _SINGLY else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With --dist loadscope a worker that has nothing left takes the next unit."""
    from xdist.scheduler import LoadScopeScheduling

    class ByUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    return ByUnit(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_collection_finish() -> None:
    """Thousands of tests have been collected and stay: the garbage collector need not look through them each time."""
    gc.collect()
    gc.freeze()


def skip_reason(longrepr: object) -> str:
    """The reason in a skip report, without pytest's prefix."""
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return str(text).removeprefix("Skipped: ").removeprefix("Skipped").strip()


def _judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not os.environ.get("CI") or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = skip_reason(report.longrepr)
    if not reason.startswith(ALLOWED):
        report.outcome = "failed"
        report.longrepr = 'skipped in CI: "%s". Make it run, or begin the reason with "%s" and say why it cannot.' % (
            reason,
            ALLOWED,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test fails unless its reason begins with "allowed:"."""
    report = yield
    _judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for whole files that skip themselves."""
    report = yield
    _judge(report)
    return report
