"""What the program of a node adds to it: the test service while somebody asks for it."""

import importlib
import sys
import types
from typing import Any

import pytest

from packtrust.arbitration import compose
from packtrust.frame import Frame
from packtrust.messages.bases import TEST_FROM_MODULE, TEST_TO_MODULE

NODE = 5
LONGEST = 293  # frames of the longest question


class Clock:
    """An env, as far as the service needs one."""

    ms = 5000

    def now_ms(self) -> int:
        return self.ms


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    """packtrust_node.start, which runs on a board."""
    monkeypatch.setitem(sys.modules, "packtrust_board", types.ModuleType("packtrust_board"))
    monkeypatch.delitem(sys.modules, "packtrust_node.start", raising=False)
    yield importlib.import_module("packtrust_node.start")
    sys.modules.pop("packtrust_node.start", None)


def flooded(start: Any, monkeypatch: pytest.MonkeyPatch, keyed: bool) -> tuple[int, int]:
    """How many of 1000 frames of tests are looked at in one second, and how many in the next."""
    taken = []

    class Service:
        requests = 0

        def __init__(self, *_arguments: Any) -> None:
            pass

        def on_frame(self, _port: int, frame: Frame) -> bool:
            taken.append(frame)
            return True

    monkeypatch.setattr("packtrust_node.testservice.TestService", Service)
    env = Clock()
    service = start._OnCall(env, 0, (TEST_TO_MODULE, TEST_FROM_MODULE), lambda: NODE, lambda: keyed)
    seen = []
    for _ in range(2):
        for _ in range(1000):
            assert service.on_frame(0, Frame(compose(TEST_TO_MODULE, NODE), bytes(8)))
        seen.append(len(taken))
        taken.clear()
        env.ms += 1000
    return seen[0], seen[1]


def test_a_node_with_keys_looks_at_as_many_frames_of_tests_as_a_question_may_have(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = flooded(start, monkeypatch, True)
    assert LONGEST <= first == second < 2 * LONGEST


def test_a_node_without_keys_looks_at_all_of_them(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert flooded(start, monkeypatch, False) == (1000, 1000)
