"""One interface over the two virtual packs: all in one process on a virtual clock, or a process a node in real time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app_bench import MACHINE, AppBench
from packtrust_host.app.command import Command
from packtrust_host.app.keystore import KeyStore
from packtrust_host.app.node import AppNode
from packtrust_host.app.provisioner import Provisioner, Survey
from packtrust_host.app.runner import Runner
from packtrust_host.sim.launcher import PackProcess
from packtrust_host.urls import open_bus


class InProcessRig(AppBench):
    """AppBench under the names the scenarios use."""

    def __init__(self, tmp_path: Path, modules: int) -> None:
        super().__init__(tmp_path, modules)
        self.modules = modules
        self.claim()

    def __enter__(self) -> InProcessRig:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.node.close()

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        return bool(self.pack.run_until(condition, int(timeout_s * 1000)))

    def command(self, give: Callable[[AppNode], Command]) -> Command:
        command = give(self.node)
        assert self.wait(lambda: command.done, 10)
        return command

    def commission(self, **options: Any) -> Survey:
        """As AppBench.commission, with the claim codes that are in the key store and no others."""
        script = self.provisioner(**options).commission(self.register, expected_modules=self.modules)
        survey: Survey = self.run(script)
        assert self.wait(lambda: self.node.established, 10)
        return survey

    def power_cycle(self, name: str) -> None:
        self.pack.power_cycle(name)

    def another_app(self, store: KeyStore) -> None:
        """Another key store takes the app's place on the bus."""
        self.store = store
        self.restart_app()


class ProcessRig:
    """The same over MicroPython processes and an adapter that python-can opens."""

    register = AppBench.register
    add_lct = AppBench.add_lct
    generation = AppBench.generation

    def __init__(self, tmp_path: Path, modules: int) -> None:
        self.entropy = random.Random("rig").randbytes
        self.modules = modules
        self.progress: list[Any] = []
        self.pack = PackProcess(modules=modules, seed=1)
        self.store = KeyStore(tmp_path / "keys", machine=MACHINE)
        self.runner: Runner | None = None

    def __enter__(self) -> ProcessRig:
        self.pack.start()
        for name, code in self.pack.claim_codes.items():
            answer = self.pack.console(name, "id")
            unique_id = json.loads(answer[answer.index("{") :])["unique_id"]
            self.store.add_claim(code, unique_id=unique_id)
        self._run_app()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.runner is not None:
            self.runner.close()
        self.pack.stop()

    def _run_app(self) -> None:
        url = f"slcan:{self.pack.adapter('vcu')}"
        self.runner = Runner(lambda: open_bus(url), self.store, **self.runner_options)
        self.runner.start()

    @property
    def runner_options(self) -> dict[str, Any]:
        """What the runner is given besides."""
        return {}

    @property
    def node(self) -> AppNode:
        assert self.runner is not None
        return self.runner.node

    @property
    def steps(self) -> list[str]:
        return [item.step for item in self.progress]

    def provisioner(self, **options: Any) -> Provisioner:
        return Provisioner(self.node, on_progress=self.progress.append, **options)

    def run(self, script: Any) -> Any:
        assert self.runner is not None
        return self.runner.run(script, 60)

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        assert self.runner is not None
        return self.runner.wait(condition, timeout_s)

    def command(self, give: Callable[[AppNode], Command]) -> Command:
        assert self.runner is not None
        command = self.runner.call(lambda: give(self.node))
        assert self.wait(lambda: command.done, 10)
        return command

    def commission(self, **options: Any) -> Survey:
        survey: Survey = self.run(self.provisioner(**options).commission(self.register, expected_modules=self.modules))
        assert self.wait(lambda: self.node.established, 10)
        return survey

    def power_cycle(self, name: str) -> None:
        self.pack.restart(name)

    def another_app(self, store: KeyStore) -> None:
        assert self.runner is not None
        self.runner.close()
        self.store = store
        self._run_app()
