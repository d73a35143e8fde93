"""Section 7 over ISO-TP: both link implementations against each other, and the request rules."""

import random

import pytest

from packtrust import provision
from packtrust.frame import Frame
from packtrust_host.app.errors import Cancelled, DeviceRefused, NoAnswer
from packtrust_host.app.tasks import InlineExecutor, Task, ThreadExecutor, Until, Wait, Work
from packtrust_host.app.transport import CanIsoTp, CoreIsoTp, Requests

TO_PACK = 0x431 << 18 | 0x40
FROM_PACK = 0x432 << 18 | 0x40


class Clock:
    def __init__(self):
        self.now_ms = 0

    def __call__(self):
        return self.now_ms


def make(kind, tx_id, rx_id, clock):
    return CoreIsoTp(tx_id, rx_id, clock) if kind == "core" else CanIsoTp(tx_id, rx_id)


def pump(one, two, got_one, got_two, drop=lambda frame: False):
    """Carry frames both ways until nothing moves."""
    moved = True
    while moved:
        moved = False
        for sender, receiver, got in ((one, two, got_two), (two, one, got_one)):
            got_before = len(got)
            for frame in sender.outgoing():
                moved = True
                assert frame.arbitration_id == sender.tx_id
                assert frame.is_extended_id
                if not drop(frame):
                    got.extend(receiver.feed(frame))
            got.extend(receiver.tick())
            moved = moved or len(got) > got_before


@pytest.mark.parametrize("left", ["core", "can-isotp"])
@pytest.mark.parametrize("right", ["core", "can-isotp"])
def test_both_implementations_understand_each_other(left, right):
    clock = Clock()
    app = make(left, TO_PACK, FROM_PACK, clock)
    pack = make(right, FROM_PACK, TO_PACK, clock)
    source = random.Random(5)
    at_app, at_pack = [], []
    for size in (1, 6, 7, 8, 9, 62, 63, 100, 600, 1759, 4095):
        request, answer = source.randbytes(size), source.randbytes(size)
        app.send(request)
        pump(app, pack, at_app, at_pack)
        pack.send(answer)
        pump(app, pack, at_app, at_pack)
        assert at_pack.pop() == request
        assert at_app.pop() == answer
    assert not at_app
    assert not at_pack
    assert app.dropped == pack.dropped == {}


@pytest.mark.parametrize("receiver", ["core", "can-isotp"])
def test_a_lost_frame_loses_the_transfer_and_is_counted(receiver):
    clock = Clock()
    app = CoreIsoTp(TO_PACK, FROM_PACK, clock)
    pack = make(receiver, FROM_PACK, TO_PACK, clock)
    at_app, at_pack = [], []
    app.send(bytes(100))
    pump(app, pack, at_app, at_pack, drop=lambda frame: frame.data[0] == 0x23)
    assert at_pack == []
    assert sum(pack.dropped.values()) >= 1
    app.send(b"the next one is whole")
    pump(app, pack, at_app, at_pack)
    assert at_pack == [b"the next one is whole"]


@pytest.mark.parametrize("kind", ["core", "can-isotp"])
def test_garbage_is_not_taken(kind):
    link = make(kind, TO_PACK, FROM_PACK, Clock())
    source = random.Random(11)
    for _ in range(300):
        data = source.randbytes(source.randrange(0, 9))
        if link.feed(Frame(FROM_PACK, data)):
            assert data[0] >> 4 in (0, 2)  # a single frame, or the last one of a transfer
        link.outgoing()


class Bench:
    """Requests over a link of which the test is the other end."""

    def __init__(self):
        self.clock = Clock()
        self.unsolicited = []
        self.link = CoreIsoTp(TO_PACK, FROM_PACK, self.clock)
        self.requests = Requests(self.link, self.unsolicited.append)
        self.far = CoreIsoTp(FROM_PACK, TO_PACK, self.clock)
        self.seen = []

    def start(self, *args, **options):
        self.task = Task(self.requests.ask(*args, **options), InlineExecutor(), "ask")
        self.step(0)
        return self.task

    def step(self, ms):
        self.clock.now_ms += ms
        payloads = []
        pump(self.link, self.far, payloads, self.seen)
        for payload in payloads:
            self.requests.on_payload(payload)
        self.task.run(self.clock.now_ms)
        pump(self.link, self.far, payloads, self.seen)

    def answer(self, kind, target, sequence, body=b""):
        self.far.send(provision.frame_message(kind, target, sequence, body))
        self.step(1)


def test_answer_is_matched_by_target_sequence_and_type():
    bench = Bench()
    task = bench.start(provision.IDENTIFY, 5)
    sent = provision.parse(bench.seen.pop())
    assert (sent.kind, sent.target, sent.body) == (provision.IDENTIFY, 5, b"")
    assert sent.sequence != 0
    bench.answer(provision.IDENTITY, 6, sent.sequence, b"another target")
    bench.answer(provision.IDENTITY, 5, sent.sequence % 255 + 1, b"another sequence")
    bench.answer(provision.PROOF, 5, sent.sequence, b"another type")
    bench.far.send(b"\x63garbage")
    bench.step(1)
    assert not task.done
    assert bench.requests.counters == {"unexpected": 3, "malformed": 1}
    bench.answer(provision.IDENTITY, 5, sent.sequence, b"who I am")
    assert task.result() == b"who I am"
    bench.answer(provision.IDENTITY, 5, sent.sequence, b"again")
    assert bench.requests.counters["unexpected"] == 4


def test_silence_is_repeated_and_then_named():
    bench = Bench()
    task = bench.start(provision.PROVE, 0x40, bytes(16), who="pack P1", timeout_ms=100, retries=2)
    for _ in range(4):
        bench.step(100)
    assert len(bench.seen) == 3
    assert len({bytes(item) for item in bench.seen}) == 1  # the very same request
    with pytest.raises(NoAnswer, match=r"pack P1 did not answer PROVE within 100 ms, 3 times\. Next: "):
        task.result()
    assert bench.requests.counters["timeout"] == 3


def test_a_package_is_never_repeated_by_itself():
    bench = Bench()
    task = bench.start(provision.PACKAGE, 3, b"sealed", timeout_ms=100)
    bench.step(100)
    bench.step(100)
    assert len(bench.seen) == 1
    with pytest.raises(NoAnswer, match="1 time"):
        task.result()


def test_late_answer_of_an_earlier_try_counts():
    bench = Bench()
    task = bench.start(provision.IDENTIFY, 5, timeout_ms=100)
    bench.step(150)
    sent = provision.parse(bench.seen[0])
    bench.answer(provision.IDENTITY, 5, sent.sequence, b"late")
    assert task.result() == b"late"


@pytest.mark.parametrize("reason", sorted(provision.REASONS))
def test_refusals_say_why_and_what_next(reason):
    bench = Bench()
    task = bench.start(provision.PACKAGE, 3, b"sealed", who="module M3")
    sent = provision.parse(bench.seen.pop())
    bench.answer(provision.REFUSED, 3, sent.sequence, bytes((provision.PACKAGE, reason)))
    with pytest.raises(DeviceRefused) as caught:
        task.result()
    assert caught.value.reason == reason
    assert "module M3 refused PACKAGE: " + provision.REASONS[reason] in str(caught.value)
    assert "Next: " in str(caught.value)


def test_refusal_of_something_else_is_not_ours():
    bench = Bench()
    task = bench.start(provision.IDENTIFY, 3)
    sent = provision.parse(bench.seen.pop())
    bench.answer(provision.REFUSED, 3, sent.sequence, bytes((provision.COMMIT, 5)))
    bench.answer(provision.REFUSED, 3, sent.sequence, b"\x01")
    assert not task.done
    assert bench.requests.counters == {"malformed": 2}


def test_unsolicited_and_posted():
    bench = Bench()
    bench.start(provision.IDENTIFY, 3)
    bench.answer(provision.PAIRED, 3, 0, b"pair")
    assert [message.body for message in bench.unsolicited] == [b"pair"]
    posted = bench.requests.post(provision.PAIR, 0x40, b"x" * 12)
    bench.step(1)
    sent = provision.parse(bench.seen[-1])
    bench.answer(provision.REFUSED, 0x40, sent.sequence, bytes((provision.PAIR, 5)))
    assert posted.answer.kind == provision.REFUSED
    bench.requests.settle(posted)
    bench.answer(provision.REFUSED, 0x40, sent.sequence, bytes((provision.PAIR, 5)))
    assert bench.requests.counters == {"unexpected": 1}


def test_sequence_numbers_never_are_zero():
    bench = Bench()
    used = set()
    for _ in range(600):
        posted = bench.requests.post(provision.IDENTIFY, 1)
        used |= {key[1] for key in bench.requests._open}
        bench.requests.settle(posted)
    assert used == set(range(1, 256))


# -- scripts


def run(script, executor=None, times=(0,)):
    task = Task(script, executor or InlineExecutor(), "script")
    for now_ms in times:
        task.run(now_ms)
    return task


def test_steps_of_a_script():
    log = []
    flag = []

    def script():
        yield Wait(10)
        log.append("waited")
        log.append((yield Until(lambda: bool(flag), 50)))
        log.append((yield Until(lambda: bool(flag), 50)))
        log.append((yield Work(lambda: 42)))
        return "end"

    task = run(script(), times=(0, 9))
    assert log == []
    task.run(10)
    task.run(59)
    assert log == ["waited"]
    task.run(60)
    flag.append(1)
    task.run(61)
    assert log == ["waited", False, True, 42]
    assert task.result() == "end"


def test_work_that_raises_reaches_the_script():
    def fail():
        raise OSError("bridge")

    def script():
        try:
            yield Work(fail)
        except OSError:
            return "handled"

    def careless():
        yield Work(fail)

    assert run(script()).result() == "handled"
    with pytest.raises(OSError, match="bridge"):
        run(careless()).result()


def test_work_in_a_thread_does_not_block():
    import threading

    release = threading.Event()
    executor = ThreadExecutor()

    def script():
        return (yield Work(lambda: release.wait(10) and "released"))

    task = run(script(), executor, (0, 1, 2))
    assert not task.done
    with pytest.raises(ValueError, match="still running"):
        task.result()
    release.set()
    executor.close()
    task.run(3)
    assert task.result() == "released"


def test_cancelled_script_cleans_up():
    log = []

    def script():
        try:
            yield Wait(1000)
        finally:
            log.append("cleaned")

    task = run(script())
    task.cancel("the test ends")
    assert log == ["cleaned"]
    with pytest.raises(Cancelled, match="the test ends"):
        task.result()
