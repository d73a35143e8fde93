"""The transmit queue's copies: every kind of frame comes out as it went in, without heap once it has its size."""

import gc

from packtrust.frame import Frame
from packtrust_node.txqueue import TxQueue

try:
    from micropython import heap_lock, heap_unlock
except ImportError:  # CPython allocates as it likes

    def heap_lock():
        """Nothing to lock."""

    def heap_unlock():
        """Nothing to unlock."""


class Driver:
    """Takes as many frames as it is told to."""

    def __init__(self, orders_by_id=False):
        self.orders_by_id = orders_by_id
        self.room = 0
        self.sent = []
        self.keep = True

    def pending(self):
        return 0

    def send(self, frame):
        if self.room == 0:
            return False
        self.room -= 1
        if self.keep:
            self.sent.append(frame.copy())
        return True


FRAMES = [
    Frame(0x14080005, b"12345678"),
    Frame(0x1FFFFFFF, b""),
    Frame(0x14080105, b"123"),
    Frame(0x14080205, b"", True, False, True, False, 5),
    Frame(0x14802405, bytes(range(48)), True, True),
    Frame(0x14802406, bytes(range(64)), True, True, False, True),
    Frame(0x14802407, b"abcd", True, True),
]


def test_frames_of_every_kind_and_length_come_out_as_they_went_in():
    driver = Driver()
    queue = TxQueue(driver)
    for turn in range(3):
        for frame in FRAMES[: 4 if turn == 0 else 7]:
            queue.put(frame)
    queue.put(Frame(0x7FF, b"eleven", False))
    driver.room = 100
    queue.pump(0)
    assert driver.sent == [Frame(0x7FF, b"eleven", False)] + FRAMES[:4] + FRAMES + FRAMES
    assert [frame.bitrate_switch for frame in driver.sent[-2:]] == [True, False]
    assert driver.sent[-1].dlc == 4 and len(queue) == 0


def test_what_is_queued_is_a_copy():
    driver = Driver()
    queue = TxQueue(driver)
    data = bytearray(b"12345678")
    frame = Frame(5, data)
    queue.put(frame)
    frame.arbitration_id = 6
    data[0] = 0
    driver.room = 1
    queue.pump(0)
    assert driver.sent == [Frame(5, b"12345678")]


def test_order_is_kept_around_the_end_of_the_memory():
    for orders_by_id in (False, True):
        driver = Driver(orders_by_id)
        queue = TxQueue(driver)
        wanted = []
        for number in range(300):
            frame = Frame(0x100000 + (number << 18), bytes((number & 255, number >> 8)))
            wanted.append(frame)
            queue.put(frame)
            driver.room = (number * 7) % 3
            queue.pump(number)
        driver.room = 300
        queue.pump(300)
        assert driver.sent == wanted


def test_a_queue_that_has_its_size_needs_no_heap():
    driver = Driver()
    queue = TxQueue(driver)
    frames = FRAMES[:3]

    def wave():
        for frame in frames:
            queue.put(frame)
        driver.room = 3
        queue.pump(0)

    wave()
    driver.keep = False
    gc.collect()
    heap_lock()
    try:
        for _ in range(40):
            wave()
    finally:
        heap_unlock()
    assert len(queue) == 0 and driver.room == 0


def test_a_frame_that_finds_no_heap_is_counted():
    queue = TxQueue(Driver(), 2)
    for number in range(5):
        queue.put(Frame(number, b""))
    assert (len(queue), queue.overflow) == (2, 3)

    def no_heap(frame):
        raise MemoryError

    queue = TxQueue(Driver())
    queue._extended.append = no_heap
    queue.put(Frame(1, b""))
    assert (len(queue), queue.overflow) == (0, 1)


def test_room_that_is_reserved_is_there_when_the_heap_is_not():
    queue = TxQueue(Driver())
    queue.reserve(2, 40)
    assert queue._extended.slots == 40 and queue._standard.slots == 2

    def refuse(slots, words):
        raise MemoryError()

    queue._extended._grow = queue._standard._grow = refuse
    for number in range(40):
        queue.put(Frame(number, b"12345678"))
    assert len(queue) == 40 and queue.overflow == 0
    queue.put(Frame(40, b"12345678"))
    assert len(queue) == 40 and queue.overflow == 1


def test_a_record_without_room_is_left_out_whole():
    queue = TxQueue(Driver(), 7)
    stream = 0x10460005 | 0x20000
    record = [Frame(stream | chunk << 12 | 4 << 8, b"12345678") for chunk in range(5)]
    other = [Frame((0x104A0005 | 0x20000) | chunk << 12 | 4 << 8, b"12345678") for chunk in range(5)]
    for frame in record + other:
        queue.put(frame)
    assert len(queue) == 5 and queue.overflow == 5
    assert [queue._extended.id_of(index) for index in range(5)] == [frame.arbitration_id for frame in record]
    queue.put(Frame(0x104A0005, b"in clear"))
    assert len(queue) == 6
    queue.clear()
    for frame in other:
        queue.put(frame)
    assert len(queue) == 5 and queue.overflow == 5


def test_the_broadcast_finds_room_beside_a_wave_of_records():
    queue = TxQueue(Driver(), 10)
    record = [Frame(0x10460005 | 0x20000 | chunk << 12 | 4 << 8, b"12345678") for chunk in range(5)]
    queue.put_record(record)
    queue.put_record(record)
    assert queue.room() == 0
    for number in range(10):
        queue.put(Frame(0x410 + number, bytes(8), False))
    assert len(queue) == 20 and queue.overflow == 0
    queue.put(Frame(0x410, bytes(8), False))
    queue.put(Frame(0x104A0005, b"in clear"))
    assert len(queue) == 20 and queue.overflow == 2


def test_a_record_put_at_once_is_as_if_put_frame_by_frame():
    record = [Frame(0x10460005 | 0x20000 | chunk << 12 | 4 << 8, bytes((chunk,)) * (8 - chunk)) for chunk in range(5)]
    fd = [Frame(0x14802405, bytes(range(48)), True, True)]
    driver = Driver()
    queue = TxQueue(driver, 12)
    queue.reserve(0, 7)
    wanted = []
    for turn in range(9):
        queue.put_record(record if turn % 4 else fd)
        wanted += record if turn % 4 else fd
        driver.room = 5
        queue.pump(turn)
    driver.room = 20
    queue.pump(10)
    assert driver.sent == wanted and queue.overflow == 0
    queue.put_record([])
    assert len(queue) == 0
    # All of it or nothing: there is room for two of them.
    for _ in range(3):
        queue.put_record(record)
    assert (len(queue), queue.overflow) == (10, 5)


def test_a_record_put_at_once_needs_no_heap():
    record = [Frame(0x10460005 | 0x20000 | chunk << 12 | 4 << 8, b"12345678") for chunk in range(5)]
    driver = Driver()
    queue = TxQueue(driver)
    queue.reserve(0, 12)
    driver.keep = False
    driver.room = 5
    queue.put_record(record)
    queue.pump(0)
    gc.collect()
    heap_lock()
    try:
        for _ in range(40):
            queue.put_record(record)
            driver.room = 5
            queue.pump(0)
    finally:
        heap_unlock()
    assert len(queue) == 0
