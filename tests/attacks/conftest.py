"""Packs to attack, in one process on a virtual clock: as they are, and without the defence that the file names."""

from collections.abc import Iterator
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


@pytest.fixture
def weak_fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AppBench]:
    """As `fresh`, without the defence of the file's ATTACK."""
    with request.module.ATTACK.weakening.applied():
        yield AppBench(tmp_path / "weak", modules=2)


@pytest.fixture
def weak(weak_fresh: AppBench) -> AppBench:
    """As `keyed`, without the defence of the file's ATTACK."""
    weak_fresh.survey = commission(weak_fresh)
    return weak_fresh


@pytest.fixture
def weakness(request: pytest.FixtureRequest) -> Iterator[None]:
    """This process runs without the defence of the file's ATTACK: for what makes its own bench."""
    with request.module.ATTACK.weakening.applied():
        yield
