"""A node: the board's ports and files (module `packtrust_board`), the node node.json asks for, and its loop.

`packtrust_board` is what a board brings along (boards/README.md):

    config() -> dict              node.json
    can_port(index, accept)       a CAN driver (see can_slcan); accept: (base, mask) pairs of 29-bit IDs to let
                                  in, None: all; for CAN FD where `env.data_bitrate(config, index)` asks for it
                                  and the controller has it
    urandom(count) -> bytes       None if the board has no entropy source
    state_directory               where the store may keep its files; of a board without a file system instead
    slots()                       its slots in raw flash (flash_slots.FlashSlots)
    console_in                    stream of the console, or None
    console_write(text)
    statistics() -> dict          figures of the board for the console's `stats`
"""

import packtrust_board as board

from packtrust._compat import const
from packtrust.arbitration import ENCRYPTED
from packtrust.messages.bases import TEST_FROM_MODULE, TEST_FROM_PACK, TEST_TO_MODULE, TEST_TO_PACK
from packtrust_node import ondemand
from packtrust_node.can_slcan import MIXED_ACCEPT, MODULE_ACCEPT
from packtrust_node.console import Console
from packtrust_node.env import Clock, Entropy, Env, data_bitrate, has_small_heap, reserve_keys, small_workspace
from packtrust_node.loop import Loop
from packtrust_node.store import FileSlots, Store
from packtrust_node.txqueue import LIMIT, SMALL_LIMIT, TxQueue

# Frames of tests a second that a node with keys takes, to refuse what they ask for: the longest question has 293.
_KEYED_FRAMES = const(320)


class _OnCall:
    """The test service while somebody asks for it: a node has better use for the RAM.

    Arguments as testservice.TestService.
    """

    def __init__(self, env, port: int, rows: "tuple[int, int]", node_byte, is_keyed) -> None:
        self.requests = 0
        self.base = rows[0]
        self._second_ms = 0
        self._frames = 0  # in this second
        self._arguments = (env, port, rows, node_byte, is_keyed)
        self._service = None
        self._asked_ms = 0

    def on_frame(self, port: int, frame) -> bool:
        """As TestService.on_frame."""
        if frame.arbitration_id >> 18 != self.base or not frame.is_extended_id or frame.arbitration_id & ENCRYPTED:
            return False
        self._asked_ms = self._arguments[0].now_ms()
        if self._asked_ms - self._second_ms >= 1000:
            self._second_ms = self._asked_ms
            self._frames = 0
        self._frames += 1
        if self._frames > _KEYED_FRAMES and self._arguments[4]():
            return True  # a node with keys has nothing but refusals for who asks, and better things to do
        if self._service is None:
            ondemand.use(self._asked_ms)
            from packtrust_node.testservice import TestService

            ondemand.hold()
            self._service = TestService(*self._arguments)
        service = self._service
        asked = service.requests
        taken = service.on_frame(port, frame)
        self.requests += service.requests - asked
        return taken

    def tick(self) -> int:
        """As TestService.tick."""
        if self._service is None:
            return 500
        wanted = self._service.tick()
        if wanted >= 500 and self._arguments[0].now_ms() - self._asked_ms >= ondemand.IDLE_MS:
            self._service = None
            ondemand.let_go()
        return wanted


def build():
    """The node's loop, ready to run."""
    config = board.config()
    is_pack = config["role"] == "pack"
    if is_pack:
        drivers = [board.can_port(0, None), board.can_port(1, None)]
    else:
        drivers = [board.can_port(0, MIXED_ACCEPT if config.get("mixed_bus") else MODULE_ACCEPT)]
    small = has_small_heap()
    ondemand.begin()
    if small:
        before = ondemand.mark()
        reserve_keys(is_pack)
        ondemand.back_to(before)  # what chooses a backend has done so
    queues = [TxQueue(driver, SMALL_LIMIT if small else LIMIT) for driver in drivers]
    if is_pack:
        # Bursts to the VCU, ten records in clear and sealed, until those are old of a second in which nobody is there.
        queues[0].reserve(32, SMALL_LIMIT)
        queues[1].reserve(0, 64)
    else:
        queues[0].reserve(0, 32)  # a module answers a poll with a few records
    for index, driver in enumerate(drivers):
        if data_bitrate(config, index) and not getattr(driver, "fd", False):
            _log("port %d has no CAN FD, though node.json asks for it: classic frames" % index)
    clock = Clock()
    entropy = Entropy(board.urandom)
    entropy.mix(str(config["unique_id"]).encode())
    slots = board.slots() if hasattr(board, "slots") else FileSlots(board.state_directory)
    store = Store(slots, entropy, config["unique_id"])
    workspace = store.shares = small_workspace(is_pack) if small else None
    env = Env(clock, entropy, store, queues, _log, workspace)
    if is_pack:
        from packtrust_node.pack import PackNode

        node = PackNode(env, config)
        rows = (TEST_TO_PACK, TEST_FROM_PACK)
    else:
        from packtrust_node.cells import make_cells
        from packtrust_node.module import ModuleNode

        node = ModuleNode(env, config, make_cells(config.get("cells", {})))
        rows = (TEST_TO_MODULE, TEST_FROM_MODULE)
    service = _OnCall(env, 0, rows, lambda: node.own_node, lambda: bool(node.relations))
    loop = None

    def figures() -> dict:
        shown = board.statistics()
        shown["crashes"] = loop.crashes
        shown["test_requests"] = service.requests
        shown["loaded"] = len(ondemand.loaded())
        shown["ports"] = [
            {
                "state": queue.driver.state,
                "queued": len(queue),
                "overflow": queue.overflow,
                "stale": queue.stale,
                "counters": queue.driver.counters,
            }
            for queue in queues
        ]
        return shown

    console = Console(node, config, board.console_write, figures)
    loop = Loop(node, clock, queues, service, console, board.console_in)
    node.start()
    console.greet()
    return loop


def _log(text: str) -> None:
    board.console_write("log " + text + "\n")
