"""Packs to break, in one process on a virtual clock."""

from pathlib import Path

import pytest

from app_bench import AppBench
from attacker import commission


@pytest.fixture
def fresh(tmp_path: Path) -> AppBench:
    """Two modules, nobody claimed anything yet."""
    return AppBench(tmp_path, modules=2)


@pytest.fixture
def keyed(fresh: AppBench) -> AppBench:
    """Two modules, claimed, keyed and in session."""
    fresh.survey = commission(fresh)
    return fresh
