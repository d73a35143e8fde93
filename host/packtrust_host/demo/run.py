"""The main job, phase by phase: bridge and virtual pack, on-target check, registration, keys, traffic, proof.

A phase that fails is noted and the run goes on where it can, for the report shall show what does work. All that is
measured about time comes afterwards, from the bus logs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import can

from packtrust.arbitration import NODE_MODULE_MAX, NODE_PACK
from packtrust.errors import PacktrustError
from packtrust.provision import ROLE_PACK
from packtrust_host.app.command import expect_isolation, expect_load
from packtrust_host.app.errors import AppError, RegistrationFailed
from packtrust_host.app.keystore import ACTIVE, APP_PACK, PACK_MODULE, Device, KeyStore, RelationshipRecord
from packtrust_host.app.provisioner import Progress, Provisioner, Survey
from packtrust_host.app.registration import Registrar, make_client
from packtrust_host.app.runner import Runner
from packtrust_host.app.validate import Validator
from packtrust_host.bridge.client import BridgeClient
from packtrust_host.bridge.errors import BridgeError
from packtrust_host.keylog import KeyLogWriter
from packtrust_host.sim.launcher import PackProcess
from packtrust_host.sim.nodes import NodeError
from packtrust_host.sim.recording import Recording
from packtrust_host.urls import BusUrlError, open_bus
from packtrust_host.verify import verify_nodes
from packtrust_host.verify_transport import discover

from . import measure
from .buslog import BusLog, LogError, read
from .criteria import Line, evaluate
from .evidence import Evidence, Pair, Registered, Search
from .keysearch import Key, control, keys_of, search
from .keytap import HostTap
from .ledger import EnergyMeter, evidence_of, settle
from .records import MATERIAL_LENGTH, KeyRing, open_all
from .traffic import FULL_LIMITS_MA, Plan, plan
from .view import SilentView, Snapshot, View, refused_of, row_of

if TYPE_CHECKING:
    from packtrust_host.bridge.server import EmbeddedBridge

MARKER = ".packtrust-demo"
BUSES = ("vcu", "module")
VERIFY_CASES = 1
DISCOVER_S = 20.0
SESSION_S = 10.0
SESSION_PER_MODULE_S = 0.5
SETTLE_S = 1.0
# More than a burst of the pack to the app, which comes each half second.
_AGAIN_RECORDS = 10
_AGAIN_S = 5.0
# For boards to unload the code for rare questions (packtrust_node.ondemand), and between two looks.
_REST_S = 15.0
_REST_STEP_S = 1.0
# MicroPython's default heap is short for the console of a gateway with more modules than this.
_DEFAULT_HEAP_MODULES = 8
_BIG_HEAP = "4M"
_LOG_LINES = 40
_SNAPSHOT_S = 0.5
_PACK_STATS_EVERY = 4
_PACK = int(NODE_PACK)

# What stops a part of a run, and says what to do about it.
EXPECTED = (PacktrustError, BridgeError, NodeError, BusUrlError, LogError, can.CanError, OSError)


@dataclass
class Options:
    """What a run is asked for. `cells`: a cycler's recording, its modules then count; `speed`: of the recording, None:
    as fast as empties it in the time there is."""

    modules: int = 3
    duration_s: float = 20.0
    seed: int = 1
    output: Path = Path("build/demo")
    cells: Path | None = None
    speed: int | None = None
    topology: str = "parallel"
    bitrate: int = 500_000
    clear_first_transfer: bool = False
    key_log: Path | None = None
    overlays: dict[str, dict[str, str]] = field(default_factory=dict)
    heap: str | None = None
    fd: bool = False  # CAN FD on the module bus
    vcu_fd: bool = False  # and on the VCU bus
    boards: dict[str, str | list[str]] = field(default_factory=dict)  # as sim.deploy.board_kinds has them


@dataclass
class Report:
    """The outcome: eight lines, what else went wrong, and facts about the run."""

    lines: list[Line]
    problems: list[str]
    facts: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Every line holds and nothing stopped the run."""
        return bool(self.lines) and all(line.ok for line in self.lines) and not self.problems

    def to_json(self) -> dict[str, Any]:
        """JSON-able; no secrets."""
        return {
            "ok": self.ok,
            "criteria": [line.to_json() for line in self.lines],
            "problems": self.problems,
            **self.facts,
        }


class OutputError(AppError):
    """The output folder cannot be used."""


class _Stop(Exception):
    """The run cannot go on; why is noted already."""


class _Registrar(Registrar):
    """A Registrar that notes a component shown otherwise than sent and goes on: the report will say so."""

    def __init__(self, client: BridgeClient, store: KeyStore) -> None:
        super().__init__(client, store)
        self.problems: dict[str, str] = {}

    def _check_component(self, component_id: str, data: str) -> None:
        try:
            super()._check_component(component_id, data)
        except RegistrationFailed as error:
            self.problems[component_id] = error.cause


class DemoRun:
    """One run. `on_event(name, run)` is called when something is about to happen or has happened, in whichever thread:
    "bridge", "pack", "verified", "surveyed", "proved:<process>" (of "app", "module1": the pair exchange is done, the
    COMMIT comes next), "keyed", "traffic", "ending". With it a test breaks one thing.
    """

    def __init__(
        self, options: Options, view: View | None = None, on_event: Callable[[str, DemoRun], None] | None = None
    ) -> None:
        self.options = options
        self.view: View = view or SilentView()
        self.bridge: EmbeddedBridge
        self.pack: PackProcess
        self.store: KeyStore
        self.runner: Runner
        self.seen = Evidence(options.modules, options.clear_first_transfer)
        self._on_event = on_event
        self._stack = contextlib.ExitStack()
        self._client: BridgeClient
        self._provisioner: Provisioner
        self._tap: HostTap
        self._survey: Survey
        self._plan: Plan
        self._limits_ma = FULL_LIMITS_MA
        self._ignored: set[str] = set()
        self._tapped: dict[str, set[str]] = {}
        self._host_keys: list[Key] = []
        self._window: measure.Window | None = None
        self._facts: dict[str, Any] = {}
        self._phases: dict[str, float] = {}
        self._phase_title = ""
        self._phase_began = 0.0
        self._key_log: KeyLogWriter | None = None
        self._pack_seen: dict[str, Any] = {}
        self._energy = EnergyMeter()

    # -- the whole -----------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Everything. Raises what stops it before there is anything to report (AppError, NodeError, SetupError)."""
        began = time.monotonic()
        try:
            with self._stack:
                self._prepare()
                self._start()
                try:
                    self._verify()
                    self._meet()
                    self._register()
                    self._key()
                    self._traffic()
                    self._end()
                except _Stop:
                    pass  # noted where it was raised; the report is made of what there is
                self._collect()
            self._analyse()
            report = Report(evaluate(self.seen), list(self.seen.problems), self._facts_of(began))
            self._write(report)
            self._phase("")
            return report
        finally:
            self.view.close()

    def _phase(self, title: str) -> None:
        now = time.monotonic()
        if self._phase_title:
            self._phases[self._phase_title] = round(now - self._phase_began, 3)
        self._phase_title, self._phase_began = title, now
        if title:
            self.view.phase(title)

    def _event(self, name: str) -> None:
        if self._on_event is not None:
            self._on_event(name, self)

    def _problem(self, what: str, error: BaseException | str) -> None:
        text = "%s: %s" % (what, error)
        self.seen.problems.append(text)
        self.view.warn(text)

    @contextlib.contextmanager
    def _noting(self, what: str, fatal: bool = False) -> Iterator[None]:
        """A part of the run that may fail: it is noted."""
        try:
            yield
        except EXPECTED as error:
            self._problem(what, error)
            if fatal:
                raise _Stop from error

    # -- 0 -------------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """An output folder of our own, empty but for what an earlier demo left there."""
        output = self.options.output = self.options.output.resolve()
        if output.exists() and not output.is_dir():
            raise OutputError("%s is no folder" % output, "give --output a folder")
        if output.exists() and any(output.iterdir()) and not (output / MARKER).exists():
            raise OutputError(
                "%s is not empty and was not made by a demo" % output, "give --output an empty or a new folder"
            )
        output.mkdir(parents=True, exist_ok=True)
        lock = self._stack.enter_context((output / MARKER).open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                "another demo is running in %s" % output, "wait for it, or give another --output"
            ) from None
        self._clean()
        for name in ("report.json", "vcu.log", "module.log"):
            (output / name).unlink(missing_ok=True)
        # Keys of nodes that will not live again are nobody's business.
        self._stack.callback(self._clean)

    def _clean(self) -> None:
        for name in ("flash", "keys", "recording"):
            shutil.rmtree(self.options.output / name, ignore_errors=True)
        for path in self.options.output.glob("bridge.sqlite*"):
            path.unlink()

    def _start(self) -> None:
        from packtrust_host.bridge.server import EmbeddedBridge  # SQLAlchemy and the web server: for this command alone

        self._phase("Starting bridge and virtual pack")
        options = self.options
        duration = options.duration_s
        config: dict[str, Any] = {}
        modules = options.modules
        if options.cells is not None:
            recording = Recording(options.cells)
            modules = self.seen.modules = recording.modules
            charge, discharge = recording.peaks_ma()
            self._limits_ma = (max(10_000, charge * 11 // 10), max(42_000, discharge * 11 // 10))
            length_s = max((row[0] for row in recording.rows()), default=0) / 1000
        self._plan = plan(duration, modules, lambda: int(time.time()), self._limits_ma, options.cells is not None)
        if options.cells is not None:
            # A halved limit makes the recording run at half speed for as long as it holds.
            speed = options.speed or max(1, math.ceil(length_s / max(1.0, self._plan.on_s - 2.0)))
            config = {"recording": options.cells, "speed": speed}
            self._facts["recording"] = {"file": options.cells.name, "seconds": round(length_s, 1), "speed": speed}
        self.bridge = self._stack.enter_context(EmbeddedBridge(options.output / "bridge.sqlite"))
        self.view.step("embedded bridge at %s" % self.bridge.url)
        self._event("bridge")
        self.pack = self._stack.enter_context(
            PackProcess(
                directory=options.output,
                modules=modules,
                seed=options.seed,
                bitrate=options.bitrate,
                topology=options.topology,
                clear_first_transfer=options.clear_first_transfer,
                overlays=options.overlays,
                heap=options.heap or (_BIG_HEAP if modules > _DEFAULT_HEAP_MODULES else None),
                tap=True,
                adapters={"vcu": 1, "module": 1},
                fd=options.fd,
                vcu_fd=options.vcu_fd,
                boards=options.boards,
                **config,
            )
        )
        self.view.step(
            "%d MicroPython nodes; adapters %s (VCU bus), %s (module bus)"
            % (modules + 1, self.pack.adapter("vcu"), self.pack.adapter("module"))
        )
        self._event("pack")

    def _bus_url(self, bus: str) -> str:
        return "slcan:%s?bitrate=%d" % (self.pack.adapter(bus), self.options.bitrate)

    # -- 1 -------------------------------------------------------------------------------------------------------------

    def _verify(self) -> None:
        """The nodes compute, `cryptography` checks, while they have no keys."""
        self._phase("Checking the nodes' arithmetic")
        self.seen.verify_expected = self.seen.modules + 1
        before = set(self.pack.keys())
        # Both stay open: a pack whose VCU bus nobody acknowledges sends every frame again and again.
        with (
            self._noting("on-target check"),
            open_bus(self._bus_url("vcu")) as vcu,
            open_bus(self._bus_url("module")) as module,
        ):
            for bus, wanted in ((vcu, 1), (module, self.seen.modules)):
                nodes = self._discover(bus, wanted)
                for report in verify_nodes(bus, nodes, cases=VERIFY_CASES, seed=self.options.seed, in_use=True):
                    self.seen.verified[report.node] = report
                    version = "%(implementation)s %(version)s" % report.info
                    self.view.step(
                        "%s (%s): %d answers, %d wrong" % (report.node, version, report.cases, report.failed)
                    )
        # The check sends keys in clear, made for it alone: they are no node's keys, and are not looked for.
        self._ignored = set(self.pack.keys()) - before
        self._event("verified")

    @staticmethod
    def _discover(bus: can.BusABC, wanted: int) -> list[int]:
        """Node bytes of the nodes on this bus, once all of them have a number."""
        deadline = time.monotonic() + DISCOVER_S
        while True:
            found = [item.node for item in discover(bus, 1.0, wanted)]
            numbered = [node for node in found if node <= NODE_MODULE_MAX or _PACK <= node < _PACK + 16]
            if len(numbered) >= wanted or time.monotonic() > deadline:
                return numbered

    # -- 2 -------------------------------------------------------------------------------------------------------------

    def _meet(self) -> None:
        """Host ID, claim codes, and who is on the bus."""
        self._phase("Finding pack and modules")
        with self._noting("finding the pack", fatal=True):
            self.store = KeyStore(self.options.output / "keys")
            self.view.step("key store %s: a demo's, without passphrase" % self.store.directory)
            self.seen.host_id = self.store.host_id
            if self.options.key_log is not None:
                self._key_log = KeyLogWriter(self.options.key_log)
                self._stack.callback(self._key_log.close)
            self._tap = self._stack.enter_context(HostTap("app", self._key_log))
            for name, code in self.pack.claim_codes.items():
                # As the installer copies what a device's console shows.
                self.store.add_claim(code, unique_id=self.pack.info["nodes"][name]["unique_id"])
                self._host_keys.append(Key(bytes.fromhex(code), "%s claim code" % name))
            rule = expect_load if self.options.cells is None else expect_isolation
            self.runner = Runner(
                lambda: open_bus(self._bus_url("vcu")),
                self.store,
                pack=0,
                current_rule=rule,
                fd=self.options.vcu_fd,
            )
            self._stack.enter_context(self.runner)
            self._provisioner = Provisioner(
                self.runner.node,
                clear_first_transfer=self.options.clear_first_transfer,
                on_progress=self._on_progress,
            )
            survey = self._provisioner.survey(0, self.seen.modules)
            self._survey = self.runner.run(survey, 30.0 + 2 * self.seen.modules, "the survey")
            self.view.step("%s and %d modules" % (self._survey.pack.serial, len(self._survey.modules)))
        self._event("surveyed")

    def _register(self) -> None:
        self._phase("Registering at the bridge")
        with self._noting("registration", fatal=True):
            self._client = self._stack.enter_context(make_client(self.bridge.url, self.store))
        registrar = _Registrar(self._client, self.store)
        app_id = ""
        with self._noting("registration of the app", fatal=True):
            app_id = registrar.register_app()
        self.seen.app = Registered("the app", app_id, registrar.problems.get(app_id, ""))
        self.view.step("app: component %s, Host ID %s" % (app_id, self.store.host_id))
        for device in [self._survey.pack, *self._survey.modules]:
            item = Registered(self._name(device))
            self.seen.devices.append(item)
            with self._noting("registration of %s" % item.name):
                item.component_id = registrar.register_device(device)
                item.problem = registrar.problems.get(item.component_id, "")
        with self._noting("the app's LCT", fatal=True):
            registrar.create_relationship(APP_PACK, None, self._survey.pack)
        for device in self._survey.modules:
            with self._noting("the LCT of %s" % self._name(device)):
                registrar.create_relationship(PACK_MODULE, self._survey.pack, device)
        with self._noting("energy accounts"):
            pack_id = self.store.devices[self._survey.pack.unique_id].component_id
            registrar.open_account(app_id)
            registrar.open_account(pack_id)
            for device in self._survey.modules:
                registrar.open_account(self.store.devices[device.unique_id].component_id, pack_id)
        self.view.step(
            "%d components, %d LCTs with halves, tensors and energy accounts"
            % (1 + len(self.seen.devices), len(self.store.relationships))
        )

    @staticmethod
    def _name(device: Device) -> str:
        return "the pack controller" if device.role == ROLE_PACK else "module %d" % device.node

    # -- 3 -------------------------------------------------------------------------------------------------------------

    def _on_progress(self, progress: Progress) -> None:
        """Runs in the node's thread."""
        if progress.step in ("proved", "active", "failed"):
            record = self.store.relationships[progress.who]
            pair = self._pair(record)
            if progress.step == "proved":
                self._event("proved:" + self._link(record))
            elif progress.step == "active":
                pair.confirmed = True
                pair.committed_us = time.time_ns() // 1000
                self.view.step("%s: keys of epoch %d at both ends" % (pair.name, record.epoch))
        elif progress.step == "installed":
            lct_id = progress.detail.split(" ", 1)[0]
            self._pair(self.store.relationships[lct_id]).receipts.append(progress.who)

    def _process(self, unique_id: int) -> str:
        """The virtual pack's name of a device. Its number on the bus is another matter: first come, first served."""
        for name, node in self.pack.info["nodes"].items():
            if node["unique_id"] == unique_id:
                return str(name)
        return "%08x" % unique_id

    def _link(self, record: RelationshipRecord) -> str:
        return "app" if record.kind == APP_PACK else self._process(record.unique_id_b)

    def _pair(self, record: RelationshipRecord) -> Pair:
        for pair in self.seen.pairs:
            if pair.node == record.node:
                return pair
        own = record.kind == APP_PACK
        name = "app and pack" if own else "pack and module %d" % record.node
        ends = ("app", "pack") if own else ("pack", self._process(record.unique_id_b))
        pair = Pair(name, record.node, ends, expected_receipts=1 if own else 2)
        self.seen.pairs.append(pair)
        return pair

    def _key(self) -> None:
        self._phase("Claiming the devices and installing keys")
        store = self.store
        records = sorted(store.relationships.values(), key=lambda item: (item.kind != APP_PACK, item.node))
        for record in records:
            pair = self._pair(record)
            pair.halves = (len(record.half_a), len(record.half_b))
            try:
                self.runner.run(self._provisioner.ensure(record.lct_id), 90.0, "the keys of %s" % pair.name)
            except EXPECTED as error:
                pair.problem = str(error)
                self.view.warn("%s: %s" % (pair.name, error))
        active = sum(1 for item in store.relationships.values() if item.state == ACTIVE)
        if not active:
            self._problem("keys", "no relationship has keys; there can be no traffic")
            raise _Stop
        self._event("keyed")
        self._phase("Waiting for sessions")
        modules = self.seen.modules
        node = self.runner.node
        started = self.runner.wait(
            lambda: node.established and len(node.model.online(node.env.now_ms())) >= modules,
            SESSION_S + SESSION_PER_MODULE_S * modules,
        )
        online = self.runner.call(lambda: node.model.online(node.env.now_ms()))
        text = "session with the app; authentic status of %d of %d modules" % (len(online), modules)
        if started:
            self.view.step(text)
        else:
            self.view.warn(text)

    # -- 4 -------------------------------------------------------------------------------------------------------------

    def _traffic(self) -> None:
        self._phase("Sealed traffic for %.0f s" % self._plan.duration_s)
        self._event("traffic")
        node = self.runner.node
        start_us = time.time_ns() // 1000
        start = time.monotonic()
        actions = list(self._plan.actions)
        self.runner.call(lambda: setattr(node, "on_record", self._energy.on_record))
        snapshots = 0
        next_snapshot = start
        note = ""
        with self._noting("traffic"):
            while (elapsed := time.monotonic() - start) < self._plan.duration_s:
                if actions and elapsed >= actions[0].at_s:
                    action = actions.pop(0)
                    note = action.name
                    self.runner.call(lambda issue=action.issue: issue(node))  # type: ignore[misc]
                    continue
                if time.monotonic() >= next_snapshot:
                    next_snapshot += _SNAPSHOT_S
                    self.view.show(self._snapshot(self._plan.duration_s - elapsed, snapshots, note))
                    snapshots += 1
                    continue
                due = min(next_snapshot, start + (actions[0].at_s if actions else self._plan.duration_s))
                # The runner's own wait: an adapter that goes away ends it.
                self.runner.wait(lambda: False, max(0.001, due - time.monotonic()))
        self._window = measure.Window(start_us, time.time_ns() // 1000)
        self._facts["live"] = self._figures()

    def _snapshot(self, left_s: float, number: int, note: str) -> Snapshot:
        node = self.runner.node
        wide = self.options.cells is not None

        def of_node() -> Snapshot:
            stats = node.stats()
            latency = stats["command_latency_ms"]
            return Snapshot(
                left_s=left_s,
                rows=[row_of(module, wide) for _, module in sorted(node.model.modules.items())],
                app=dict(stats["records"]),
                app_epoch=stats["epoch"],
                commands=sum(1 for item in node.commands if item.measures_state),
                p50_ms=latency["p50"],
                p99_ms=latency["p99"],
                note=note,
            )

        snapshot = self.runner.call(of_node)
        for name, bus in self.pack.statistics()["buses"].items():
            snapshot.load[name] = bus["load"]
            snapshot.frames[name] = bus["frames"]
        if number % _PACK_STATS_EVERY == 0 and self.seen.modules <= _DEFAULT_HEAP_MODULES:
            # Of a larger pack the gateway's answer is long enough to come between it and its modules.
            self._pack_seen = self.pack.control("node_statistics", node="pack")
        for row in snapshot.rows:
            shown = self._pack_seen.get("modules", {}).get(str(row.number), {})
            row.epoch = shown.get("epoch")
            counts = shown.get("records", {})
            row.sealed, row.opened = counts.get("sealed", 0), counts.get("opened", 0)
            row.refused = refused_of(counts)
        return snapshot

    def _figures(self) -> dict[str, Any]:
        """What the app saw, for the report: every module with every cell."""
        node = self.runner.node

        def collect() -> dict[str, Any]:
            modules = {}
            for number, module in sorted(node.model.modules.items()):
                values = asdict(module)
                cells = values.pop("cells")
                for name in list(values):
                    if name == "intervals" or name.endswith("_ms"):
                        del values[name]
                values["cells_mv"] = [cells[index]["mv"] for index in sorted(cells)]
                values["cells_centi_c"] = [cells[index]["centi_c"] for index in sorted(cells)]
                modules[str(number)] = values
            return {"app": node.stats(), "modules": modules}

        return self.runner.call(collect)

    # -- 5 -------------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        self._phase("Off, validation, trust and energy")
        self._event("ending")
        node = self.runner.node
        with self._noting("Off"):
            off = self.runner.call(lambda: node.set_state(0))
            self.runner.wait(lambda: off.done, 5.0)
            # What was asked in the window's last moment is answered now.
            self.runner.wait(lambda: False, SETTLE_S)
        with self._noting("validation"):
            script = Validator(self._provisioner, self._client).run()
            report = self.runner.run(script, 60.0 + 3 * self.seen.modules, "the validation")
            self.seen.findings = list(report.findings)
            self.seen.validated = len(report.checked)
            self.view.step("%d LCTs validated, %d findings" % (len(report.checked), len(report.findings)))
        with self._noting("attestation"):
            attested = self.runner.run(self._provisioner.attest(self._survey.pack), 30.0, "the attestation")
            problems = list(attested.problems)
            answer = _Registrar(self._client, self.store).forward_attestation(self._survey.pack, attested)
            if not answer.proven:
                problems.append("the bridge does not accept the pack's statement: %s" % answer.reason)
            self.seen.attestation = problems
            self.view.step("the pack attests %d modules" % len(attested.attestation.entries))
        with self._noting("trust and energy"):
            authentic, obeyed = self.runner.call(lambda: evidence_of(node))
            settled = settle(
                self._client,
                list(self.store.relationships.values()),
                self._given_wh(),
                authentic,
                obeyed,
            )
            self._facts["ledger"] = {
                "atp": {str(number): str(amount) for number, amount in settled.atp.items()},
                "scores": {lct_id: str(score) for lct_id, score in settled.scores.items()},
            }
            self.view.step(
                "%d tensors updated, %s ATP discharged" % (len(settled.scores), sum(settled.atp.values(), Decimal(0)))
            )
        with self._noting("final figures"):
            self.seen.app_sessions = int(self.runner.call(lambda: node.established))
            self.seen.stats["the app"] = self.runner.call(lambda: dict(node.stats()["records"]))
            self._node_stats()
            self._note_heap_at_rest()
            self._until_heard_again()

    def _until_heard_again(self) -> None:
        """A board that answers such questions stands still for so long that a record may be half sent: the logs end
        when it has gone on.
        """
        node = self.runner.node
        opened = self.runner.call(lambda: node.stats()["records"]["opened"])
        self.runner.wait(lambda: node.stats()["records"]["opened"] >= opened + _AGAIN_RECORDS, _AGAIN_S)

    def _given_wh(self) -> dict[int, float]:
        """What the modules gave; of a recording that was compressed in time, what it stands for."""
        speed = self._facts.get("recording", {}).get("speed", 1)
        return self.runner.call(lambda: {node: wh * speed for node, wh in self._energy.given_wh.items()})

    def _node_stats(self) -> None:
        refused: dict[str, dict[str, int]] = {}
        for name, stats in self.pack.node_statistics().items():
            refused[name] = stats.get("counters", {})
            if "heap_least" in stats.get("board", {}):
                self._note_heap(name, stats["board"])
            if name != "pack":
                self.seen.stats[name] = stats.get("records", {})
                continue
            counts: dict[str, int] = dict(stats.get("app", {}).get("records", {}))
            for link in stats.get("modules", {}).values():
                for verdict, count in link.get("records", {}).items():
                    counts[verdict] = counts.get(verdict, 0) + count
            self.seen.stats["the pack controller"] = counts
            self._facts["pack_polls"] = stats.get("polls", {})
        self._facts["refused"] = {name: {k: v for k, v in counts.items() if v} for name, counts in refused.items()}

    def _note_heap_at_rest(self) -> None:
        """Boards with little RAM keep the code for rare questions for a while: take the figures when it is gone."""
        waiting = list(self._facts.get("heap", {}))
        deadline = time.monotonic() + _REST_S
        while waiting and time.monotonic() < deadline:
            for name, stats in self.pack.node_statistics().items():
                if name in waiting and not stats["board"]["loaded"]:
                    self._note_heap(name, stats["board"])
                    waiting.remove(name)
            if waiting:
                time.sleep(_REST_STEP_S)
        for name in waiting:
            self.view.step("%s has code for rare questions in its heap for %d s" % (name, _REST_S))

    def _note_heap(self, name: str, figures: dict[str, Any]) -> None:
        """Of a board with little RAM: what is free now, in one piece, and the least that was free when it was asked."""
        free, least = figures["heap_free"], figures["heap_least"]
        self._facts.setdefault("heap", {})[name] = {
            "board": self.pack.info["nodes"][name]["board"],
            "bytes": free + figures["heap_used"],
            "free": free,
            "least_free": least,
            "largest_piece": figures["heap_block"],
        }

    def _collect(self) -> None:
        """Before everything ends: keys and bus figures."""
        with self._noting("collecting keys"):
            for text, owners in self.pack.keys().items():
                self._tapped[text] = set(owners)
            self._facts["buses"] = {
                name: {key: bus[key] for key in ("bitrate", "frames", "load_mean", "error_frames", "retransmissions")}
                for name, bus in self.pack.statistics()["buses"].items()
            }
        if self.seen.problems:
            with self._noting("collecting node logs"):
                self._facts["diagnosis"] = {
                    "logs": {
                        name: self.pack.control("node_log", node=name)[-_LOG_LINES:] for name in self.pack.info["nodes"]
                    },
                    "statistics": self.pack.statistics(),
                }
        if hasattr(self, "store"):
            private = self.store.private_key
            self._host_keys.append(Key(bytes(private), "app binding key"))
            for record in self.store.relationships.values():
                name = self._link(record)
                for kind in ("half_a", "half_b", "lct_half", "root"):
                    secret = bytes(getattr(record, kind))
                    if secret:
                        self._host_keys.append(Key(secret, "%s %s" % (name, kind)))
        if hasattr(self, "_tap"):
            for text, names in self._tap.keys.items():
                self._tapped.setdefault(text, set()).update(names)

    # -- the proof -----------------------------------------------------------------------------------------------------

    def _analyse(self) -> None:
        self._phase("Reading the bus logs")
        seen = self.seen
        logs: list[BusLog] = []
        with self._noting("reading the logs"):
            for bus in BUSES:
                log = read(self.options.output / (bus + ".log"), bus)
                logs.append(log)
                self.view.step("%s bus: %d frames, %d transfers" % (bus, len(log.frames), len(log.transfers)))
        keyed_us = {pair.node: pair.committed_us for pair in seen.pairs if pair.committed_us is not None}
        ring = self._ring()
        for log in logs:
            nodes = {node: at for node, at in keyed_us.items() if (node >= _PACK) == (log.name == "vcu")}
            end_us = log.frames[-1].time_us if log.frames else 0
            seen.secrecy.append(measure.secrecy(log, nodes, end_us))
            seen.records.append(open_all(log, ring))
        self._key_log_all(ring)
        for records in seen.records:
            for pair in seen.pairs:
                if (pair.node >= _PACK) == (records.bus == "vcu"):
                    seen.sessions[pair.node] = records.both_ways(pair.node)
        self._count_shared()
        if self._window is not None and len(logs) == len(BUSES):
            self._measure(logs)
        self._phase("Searching the logs for keys")
        keys = self._host_keys + keys_of(self._tapped, self._ignored)
        result = search(keys, logs)
        kinds: dict[str, int] = {}
        for key in keys:
            for kind in {owner.split(" ", 1)[1] for owner in key.name.split(", ")}:
                kinds[kind] = kinds.get(kind, 0) + 1
        seen.search = Search(result, [control(log) for log in logs if log.frames], kinds)
        self.view.step("%d keys in %d frames: %d found" % (result.keys, result.frames, len(result.found_keys)))

    def _ring(self) -> KeyRing:
        materials = [bytes.fromhex(text) for text in self._tapped if len(text) == 2 * MATERIAL_LENGTH]
        senders: list[bytes] = []
        if hasattr(self, "store"):
            senders = [self.store.fingerprint, *(device.fingerprint for device in self.store.devices.values())]
        return KeyRing(materials, senders)

    def _key_log_all(self, ring: KeyRing) -> None:
        """The user asked for the keys by name: with those of the virtual pack's own links the whole log can be read."""
        if self.options.key_log is None:
            return
        writer = KeyLogWriter(self.options.key_log)
        try:
            for direction, key, iv_base, sender in ring.used():
                writer(direction, key, iv_base, sender)
        finally:
            writer.close()

    def _count_shared(self) -> None:
        """Derived keys that both ends of a pair had: only with equal halves, salt and exchange do they come about."""
        for pair in self.seen.pairs:
            for text, owners in self._tapped.items():
                if text in self._ignored or len(text) != 64:
                    continue
                having = {owner.split(" ", 1)[0] for owner in owners if owner.split(" ", 1)[1] in ("prk", "okm")}
                if having >= set(pair.ends):
                    pair.shared_keys += 1

    def _measure(self, logs: list[BusLog]) -> None:
        assert self._window is not None
        seen, window = self.seen, self._window
        vcu, module = seen.records
        live = [node for node, (there, back) in seen.sessions.items() if node <= NODE_MODULE_MAX and there and back]
        rule = expect_load if self.options.cells is None else expect_isolation
        seen.polls = measure.polls(module, live, window)
        seen.bursts = measure.bursts(logs[0], window)
        seen.commands = measure.commands(vcu, live, window, _PACK, rule)
        seen.limits = measure.limits(vcu, live, window, _PACK)
        self._facts["course"] = [asdict(sample) for sample in measure.course(vcu, live, window)]

    # -- report --------------------------------------------------------------------------------------------------------

    def _facts_of(self, began: float) -> dict[str, Any]:
        options = self.options
        return {
            "seconds": round(time.monotonic() - began, 1),
            "phases_s": {**self._phases, self._phase_title: round(time.monotonic() - self._phase_began, 3)},
            "options": {
                "modules": self.seen.modules,
                "duration_s": self._plan.duration_s,
                "seed": options.seed,
                "bitrate": options.bitrate,
                "topology": options.topology,
                "clear_first_transfer": options.clear_first_transfer,
            },
            "host": {"python": platform.python_version(), "system": platform.platform()},
            "host_id": self.seen.host_id,
            "nodes": {
                str(device.node): {"process": self._process(device.unique_id), "serial": device.serial}
                for device in (self.store.devices.values() if hasattr(self, "store") else ())
            },
            "logs": {bus: str(options.output / (bus + ".log")) for bus in BUSES},
            "on_target": {name: report.to_json() for name, report in self.seen.verified.items()},
            "records": self.seen.stats,
            **self._facts,
        }

    def _write(self, report: Report) -> None:
        (self.options.output / "report.json").write_text(
            json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8"
        )
