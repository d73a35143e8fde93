"""The node's loop and console, on streams that exist only here."""

import json

from packtrust.frame import Frame
from packtrust_node import loop as loops
from packtrust_node.console import Console
from packtrust_node.txqueue import TxQueue
from portable import raises


class Driver:
    """A CAN driver that has what a test puts into it."""

    orders_by_id = False
    stream = None
    state = "active"

    def __init__(self):
        self.incoming = []
        self.sent = []
        self.nodes = []

    def poll(self, now_ms):
        return 100

    def pending(self):
        return 0

    def send(self, frame):
        self.sent.append(frame.copy())
        return True

    def accept_nodes(self, nodes):
        self.nodes.append(nodes)

    def recv(self):
        return self.incoming.pop(0) if self.incoming else None


class Clock:
    """Time goes on by itself, 1 ms a look."""

    def __init__(self):
        self.ms = 0

    def now_ms(self):
        self.ms += 1
        return self.ms


class Node:
    """Answers each frame, chokes on those named so."""

    def __init__(self):
        self.got = []
        self.errors = []
        self.ticks = 0
        self.queue = None
        self.code = b"\x01\xab" * 8
        self.resets = 0
        self.ended_ms = None
        self.stirred = False
        self.spare = 1000
        self.behind = 0
        self.took_long = False

    def fell_behind(self, now_ms):
        self.behind += 1

    def failed(self, error):
        self.errors.append(type(error).__name__)

    def receive(self, port, frame):
        if bytes(frame.data) == b"choke":
            raise ValueError("choked")
        self.got.append((port, frame.arbitration_id))
        self.stirred = True
        self.queue.put(Frame(frame.arbitration_id + 1, b""))

    def on_tick(self):
        self.ticks += 1
        if self.ticks == 13:
            raise ValueError("unlucky")
        return 1000

    def spare_ms(self, now_ms):
        return self.spare

    def hears(self):
        return (0, 5 if self.ticks < 3 else 6)

    def figures(self):
        yield "ticks", self.ticks
        yield "pairs", [("a", lambda: 1), ("b", lambda: [2])]

    def claim_code(self):
        return self.code

    def reset(self):
        self.resets += 1
        self.code = b""


class Service:
    """Takes ID 7."""

    base = 0

    def __init__(self):
        self.got = 0

    def on_frame(self, port, frame):
        self.got += frame.arbitration_id == 7
        return frame.arbitration_id == 7

    def tick(self):
        return 500


class Input:
    """A console stream: bytes, then nothing, or the end."""

    def __init__(self, data, ends):
        self.data = data
        self.ends = ends

    def readinto(self, buffer):
        if not self.data:
            return 0 if self.ends else None
        buffer[0] = self.data[0]
        self.data = self.data[1:]
        return 1


def without_select(function):
    """Run as on a board without select, where ports are asked in turn: streams need be no real ones."""
    had = loops.poll
    loops.poll = None
    try:
        return function()
    finally:
        loops.poll = had


def made(console_in=None, console=None):
    driver = Driver()
    node = Node()
    queue = TxQueue(driver)
    node.queue = queue
    service = Service()
    loop = loops.Loop(node, Clock(), [queue], service, console, console_in)
    return driver, node, service, loop


def test_frames_go_to_the_service_or_the_node_and_answers_out():
    def run():
        driver, node, service, loop = made()
        driver.incoming = [Frame(5, b""), Frame(7, b""), Frame(9, b"")]
        loop.step(0)
        assert node.got == [(0, 5), (0, 9)]
        assert service.got == 1
        assert [frame.arbitration_id for frame in driver.sent] == [6, 10]
        assert node.ticks == 1

    without_select(run)


def test_a_controller_without_a_stream_is_asked_in_turn_where_there_is_select():
    driver, node, _, loop = made()
    driver.incoming = [Frame(5, b"")]
    loop.step(0)
    assert node.got == [(0, 5)] and driver.sent
    driver.state = "lost"
    loop.step(0)  # there is nothing to take out of the poll
    driver.incoming = [Frame(9, b"")]
    loop.step(0)
    assert node.got == [(0, 5), (0, 9)]


def test_the_driver_hears_of_new_node_filters_once():
    def run():
        driver, node, _service, loop = made()
        for _ in range(4):
            loop._due_ms = 0
            loop.step(0)
        assert node.ticks == 4
        assert driver.nodes == [(0, 5), (0, 6)]

    without_select(run)


def test_a_console_answer_that_fails_does_not_end_the_node():
    class Broken:
        def feed(self, data):
            raise MemoryError("no room for the answer")

        def log(self, text):
            self.said = text

    def run():
        console = Broken()
        _driver, node, _service, loop = made(Input(b"stats\n", False), console)
        loop.step(0)
        assert loop.crashes == 1 and "MemoryError" in console.said
        loop._due_ms = 0
        loop.step(0)
        assert node.ticks == 2

    without_select(run)


def test_an_exception_of_the_node_is_counted_and_the_loop_goes_on():
    def run():
        said = []
        driver, node, _service, loop = made(None, Console(Node(), {}, said.append))
        loops.print_exception = None
        driver.incoming = [Frame(5, b"choke"), Frame(5, b"")]
        loop.step(0)
        assert node.errors == ["ValueError"] and loop.crashes == 0
        loop.step(0)  # what came behind it is not forgotten
        assert node.got == [(0, 5)]
        node.ticks = 12
        for _ in range(20):
            loop.step(0)
        assert loop.crashes == 1
        assert said == ["log crash ValueError: report this\n"]

    had = loops.print_exception
    try:
        without_select(run)
    finally:
        loops.print_exception = had


def test_after_a_message_that_took_long_others_get_their_turn():
    def run():
        driver, node, _service, loop = made()
        driver.incoming = [Frame(5, b"")] * 10
        receive = node.receive

        def slow(port, frame):
            receive(port, frame)
            node.took_long = True

        node.receive = slow
        for taken in range(1, 5):
            loop.step(0)
            assert len(node.got) == taken and not node.took_long

    without_select(run)


def test_long_messages_in_a_row_tell_that_the_bus_leaves_no_pause():
    def run():
        driver, node, _service, loop = made()
        receive = node.receive

        def slow(port, frame):
            receive(port, frame)
            node.took_long = True

        node.receive = slow
        for _ in range(20):  # as many as there may be, with a pause behind each
            driver.incoming = [Frame(5, b"")]
            loop.step(0)
            loop.step(0)
        assert len(node.got) == 20 and node.behind == 0
        driver.incoming = [Frame(5, b"")] * 10
        for _ in range(4):
            assert node.behind == 0
            loop.step(0)
        assert node.behind == 1

    without_select(run)


def test_a_flood_does_not_starve_the_tick():
    def run():
        driver, node, _service, loop = made()
        driver.incoming = [Frame(5, b"")] * 1000
        for _ in range(20):
            loop.step(0)
        assert 20 * 32 >= len(node.got) >= 20
        # The node is asked again soon after frames, though it wanted a second of rest.
        assert node.ticks >= 3 and node.behind == 20

    without_select(run)


def scrubs(ended_ms, due_ms, rounds=1, pause_ms=0):
    """How often the heap is overwritten in so many rounds, with pauses, if that is wanted for so long; and whether it
    is wanted still.
    """
    _, node, _, loop = made()
    count = [0]
    original = loops.free_heap

    def counted():
        count[0] += 1

    def run():
        now_ms = loop._clock.now_ms()
        for _ in range(rounds):
            if ended_ms is not None:
                node.ended_ms = now_ms - ended_ms
            loop._rest_ms -= pause_ms
            loop._due_ms = now_ms + due_ms
            loop.step(100)

    loops.free_heap = counted
    try:
        without_select(run)
    finally:
        loops.free_heap = original
    return count[0], node.ended_ms is not None


def test_the_heap_is_overwritten_when_there_is_time():
    assert scrubs(None, 1000) == (0, False)
    assert scrubs(5, 1000) == (1, True)
    # Half a second later once more, and that is it.
    assert scrubs(5, 1000, 2, 400) == (1, True)
    assert scrubs(5, 1000, 2, 600) == (2, False)
    # Soon there is something to do.
    assert scrubs(5, 5)[0] == 0
    # It has waited long enough.
    assert scrubs(2500, 5) == (1, True)
    # Sessions that end all the time do not make the node do nothing else.
    assert scrubs(2500, 1000, 10)[0] == 1


def test_the_loop_ends_with_its_console():
    def run():
        said = []
        node = Node()
        _driver, _, _, loop = made(Input(b"id\n", True), Console(node, {"role": "pack", "serial": "S"}, said.append))
        loop.run()
        assert not loop.running
        assert len(said) == 1

    without_select(run)


def test_the_console_waits_for_a_broadcast_that_is_due():
    def run():
        said = []
        tested = Console(Node(), {"role": "pack", "serial": "S"}, said.append)
        _driver, node, _, loop = made(Input(b"id\n", False), tested)
        node.spare = 20
        for _ in range(5):
            loop.step(0)
        assert not said
        node.spare = 480
        for _ in range(5):
            loop.step(0)
        assert len(said) == 1

    without_select(run)


def console():
    said = []
    node = Node()
    config = {"role": "module", "serial": "S-1", "unique_id": 9, "hidden": 1}
    return node, said, Console(node, config, said.append, lambda: {"heap": 3})


def test_a_driver_without_heap_for_what_it_read_does_not_end_the_node():
    class Small(Driver):
        def recv(self):
            if self.incoming and self.incoming[0] is None:
                self.incoming.pop(0)
                raise MemoryError()
            loop.running = bool(self.incoming)
            return Driver.recv(self)

    def run():
        loop.run()
        assert loop.crashes == 1
        assert node.got == [(0, 5)]

    _, node, _, loop = made()
    node.queue = TxQueue(Small())
    node.queue.driver.incoming = [None, Frame(5, b"")]
    loop._queues = [node.queue]
    without_select(run)


def test_what_a_driver_has_no_room_for_is_tried_again_soon_without_a_frame_that_wakes_the_node():
    class Full(Driver):
        def send(self, frame):
            return False

    class Poller:
        def __init__(self):
            self.waits = []

        def poll(self, wait_ms):
            self.waits.append(wait_ms)
            return []

    _, node, _, loop = made()
    loop.step(0)
    poller = loop._poller = Poller()
    loop._poll = poller.poll
    loop._due_ms = 1 << 20
    loop.step(500)
    node.queue = TxQueue(Full())
    node.queue.put(Frame(5, b""))
    loop._queues = [node.queue]
    loop.step(500)
    assert poller.waits == [100, 5]


def test_console_commands():
    node, said, tested = console()
    tested.greet()
    assert said == ["packtrust module S-1\n", "claim " + "01ab" * 8 + "\n"]
    del said[:]
    tested.feed(b"id\r\nst")
    tested.feed(b"ats\n\n")
    said[1:] = ["".join(said[1:])]  # figures are said in pieces
    assert json.loads(said[0][3:]) == {"role": "module", "serial": "S-1", "unique_id": 9}
    assert json.loads(said[1][6:]) == {"ticks": 0, "pairs": {"a": 1, "b": [2]}, "board": {"heap": 3}}
    del said[:]
    tested.feed(b"reset\nclaim\nhelp\nnonsense\n")
    assert node.resets == 1
    assert said[:2] == ["reset done\n", "claim none\n"]
    assert said[3] == "error no such command: type help\n"
    del said[:]
    tested.greet()
    assert said == ["packtrust module S-1\n"]


def test_figures_are_said_in_small_pieces_and_a_line_that_is_broken_off_ends():
    node, said, tested = console()
    heap = []

    def scarce():
        if not heap:
            raise MemoryError()
        return {"state": 3}

    def figures():
        yield "counters", {"refused-%d" % number: {"inner": number} for number in range(30)}
        yield "modules", [("1", scarce)]

    node.figures = figures
    raises(MemoryError, lambda: tested.feed(b"stats\n"))
    assert max([len(text) for text in said]) < 30  # a board may have no kilobyte in one piece
    assert said[-1] == "\n"  # what is logged of it is a line of its own
    assert "".join(said).count("\n") == 1
    heap.append(1)
    del said[:]
    tested.feed(b"stats\n")
    shown = json.loads("".join(said)[6:])
    assert shown["counters"]["refused-29"] == {"inner": 29}
    assert shown["modules"] == {"1": {"state": 3}}
    assert shown["board"] == {"heap": 3}


def test_console_survives_rubbish():
    _node, said, tested = console()
    tested.feed(b"x" * 1000)
    tested.feed(b"yyy\n\xff\xfe\n" + bytes(range(32)) + b"\nid\n")
    assert said[0] == "error line too long: type help\n"
    assert said[-1].startswith("id ")
