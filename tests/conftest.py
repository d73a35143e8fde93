"""What holds for every test: markers from folders, and skips that must explain themselves."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# Other tests share the processors: how long an example takes says nothing.
settings.register_profile("packtrust", deadline=None, print_blob=True)
settings.load_profile("packtrust")

# The project's own plugin (host/pytest_micropython_boards) for tests/hil, and pytest's for the plugin's own tests.
pytest_plugins = ["pytest_micropython_boards.plugin", "pytester"]

TESTS = Path(__file__).resolve().parent
ALLOWED = "allowed:"

# Commands that tests start have nobody who types a passphrase; tests of passphrases say what they want.
os.environ["PACKTRUST_UNLOCK"] = "none"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of the folder it lies in: `-m pack` and the like select folders."""
    for item in items:
        if item.path.is_relative_to(TESTS):
            parts = item.path.relative_to(TESTS).parts
            if len(parts) > 1:
                item.add_marker(parts[0])


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
