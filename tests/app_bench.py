"""A virtual pack with the firmware's own nodes, an app beside it and a bridge behind: for tests of the host app."""

import random
from typing import Any

from packtrust_host.app.keystore import APP_PACK, KEYED, PACK_MODULE, KeyStore, RelationshipRecord
from packtrust_host.app.node import AppNode
from packtrust_host.app.provisioner import Provisioner, Survey
from packtrust_host.sim.inprocess import InProcessPack

MACHINE = b"test machine"


class AppBench:
    """An InProcessPack with an AppNode; everything random is seeded.

    `claim()` copies the claim codes from the consoles; `run(script)` drives a script on the virtual clock.
    """

    generation = ""  # ends the names of LCTs: registered anew, a relationship has a new one

    def __init__(self, tmp_path: Any, modules: int = 3, seed: int = 1, pack: Any = None, **options: Any) -> None:
        self.pack = pack or InProcessPack(modules, seed, **options)
        self.entropy = random.Random("app/%d" % seed).randbytes
        self.store = KeyStore(tmp_path / "keys", machine=MACHINE, urandom=self.entropy, now=lambda: "now")
        self.node: AppNode = None  # type: ignore[assignment]
        self.progress: list[Any] = []
        self.frames: list[Any] = []
        self.pack.start()
        self.restart_app()

    def restart_app(self) -> AppNode:
        """Start the app anew: only its key store is left."""
        if self.node is not None:
            self.pack.power_off("app")
            del self.pack.stations["app"]
            vcu = self.pack.vcu
            vcu.detach(next(item for item in vcu.controllers if item.name == "app"))
        self.store.reload()
        self.node = self.pack.attach(lambda env: AppNode(env, self.store))
        return self.node

    def provisioner(self, **options: Any) -> Provisioner:
        return Provisioner(self.node, on_progress=self.progress.append, **options)

    @property
    def steps(self) -> list[str]:
        return [item.step for item in self.progress]

    def claim(self, *names: str) -> None:
        """Copy the claim codes the consoles show into the key store."""
        for name in names or [name for name in self.pack.stations if name != "app"]:
            node = self.pack.node(name)
            self.store.add_claim(bytes(node.identity.claim_code), unique_id=node.unique_id)

    def run(self, script: Any, timeout_ms: int = 120_000) -> Any:
        """A script's value; raises what it raises."""
        task = self.node.spawn(script, "test")
        if not self.pack.run_until(lambda: task.done, timeout_ms):
            raise AssertionError("the script did not end within %d ms" % timeout_ms)
        return task.result()

    def register(self, survey: Survey) -> None:
        """What a bridge would give, without one: component ids and halves straight into the key store."""
        with self.store.transaction() as state:
            state.component_id = "COMP-app"
            for device in [survey.pack, *survey.modules]:
                state.devices[device.unique_id].component_id = "COMP-%08x" % device.unique_id
        self.add_lct(APP_PACK, None, survey.pack)
        for module in survey.modules:
            self.add_lct(PACK_MODULE, survey.pack, module)

    def add_lct(self, kind: str, a: Any, b: Any) -> str:
        name = "%s-%08x%s" % (kind, b.unique_id, self.generation)
        if name in self.store.relationships:
            return name
        record = RelationshipRecord(
            lct_id=name,
            kind=kind,
            component_a="COMP-app" if a is None else "COMP-%08x" % a.unique_id,
            component_b="COMP-%08x" % b.unique_id,
            unique_id_a=0 if a is None else a.unique_id,
            unique_id_b=b.unique_id,
            fingerprint_a=self.store.fingerprint if a is None else a.fingerprint,
            fingerprint_b=b.fingerprint,
            node=b.node,
            state=KEYED,
            half_a=bytearray(self.entropy(64)),
            half_b=bytearray(self.entropy(64)),
            lct_half=bytearray(self.entropy(64)),
        )
        with self.store.transaction() as state:
            state.relationships[name] = record
        return name

    def commission(self, **options: Any) -> Survey:
        """Claim and provision everything."""
        self.claim()
        modules = len(self.pack.stations) - 2
        survey: Survey = self.run(self.provisioner(**options).commission(self.register, expected_modules=modules))
        assert self.pack.run_until(lambda: self.node.established, 10_000)
        return survey
