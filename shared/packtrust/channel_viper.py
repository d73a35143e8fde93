# mypy: ignore-errors
"""The hot path of a `Channel` in MicroPython's viper: what it does for a record that is as it should be.

Never imported by CPython or CircuitPython; `channel` asks for it, and puts these functions in the place of its methods
of the same names. Those are the reference: whatever is not as it should be goes to them (`_seal`, `_feed_any`,
`_open_any`), before anything was changed. Integers are 32 bits here: counters beyond 2^30 go there too.
"""

import micropython

TYPE_CHECKING = False
if TYPE_CHECKING:
    ptr8 = bytearray


@micropython.viper
def seal(self, arbitration_id, data):
    """`Channel.seal` of a short record, with the sending direction ready for use, in classic frames."""
    session = self._session
    if not session:
        return self._seal(arbitration_id, data)
    tx = session.tx
    head_then = self._heads.get(arbitration_id)
    if not head_then or not tx:
        return self._seal(arbitration_id, data)
    head = int(head_then)
    counter = int(tx.latest) + 1
    size = int(len(data))  # noqa: RUF046
    cited = 0
    start = 28
    if head & 0x100:
        rx = session.rx
        if not rx:
            return self._seal(arbitration_id, data)
        cited = int(rx.highest)
        start = 32
    last = size + start - 1 >> 3
    if counter < 1 or counter > int(self._small_max) or size + start - 28 > int(self._room):
        return self._seal(arbitration_id, data)
    now_ms = self._clock()
    if int(now_ms) - int(tx.ends_ms) >= 0:
        tx.turn(now_ms)
    tx.latest = counter
    tx.recent = True
    self._sealed = int(self._sealed) + 1 & 0x3FFFFFFF
    shared = self._shared
    whole = shared.tx
    work = ptr8(whole)
    template = ptr8(tx.template)
    at = 0
    while at < 24:
        work[at] = template[at]
        at += 1
    work[1] = head >> 24
    work[2] = head >> 16 & 0xFE
    work[4] = head
    work[24] = counter >> 24
    work[25] = counter >> 16
    work[26] = counter >> 8
    work[27] = counter
    if start == 32:
        work[28] = cited >> 24
        work[29] = cited >> 16
        work[30] = cited >> 8
        work[31] = cited
    source = ptr8(data)
    at = 0
    while at < size:
        work[start + at] = source[at]
        at += 1
    size += start - 28
    work[11] = size
    tx.seal(whole, size, 12)
    self._heads[arbitration_id] = head ^ 0x10000
    frames = shared.frames[last]
    if not frames:
        frames = shared.frames_of(last)
    head = head & 0x1FFF00FF | last << 8
    at = 0
    while at < last:
        frame = frames[at]
        frame.arbitration_id = head
        head += 0x1000
        at += 1
    frame = frames[last]
    frame.arbitration_id = head
    last = last << 3
    size += 28 - last
    tail = ptr8(shared.tail)
    at = 0
    last += 16
    while at < size:
        tail[at] = work[last + at]
        at += 1
    frame.data = shared.tails[size]
    frame.dlc = size
    return frames


@micropython.viper
def feed(self, frame):
    """`Channel.feed` of the chunks of a stream that is known."""
    identifier = frame.arbitration_id
    head = int(identifier)
    if head & 0xFF != int(self.node):
        return None
    partial = self._partials.get(head & 0x1FFE00FF)
    if not partial or frame.is_fd:
        return self._feed_any(frame, identifier)
    payload = frame.data
    size = int(len(payload))  # noqa: RUF046
    now_ms = self._clock()
    awaited = int(partial.awaited)
    at = head >> 9 & 0x78
    end = head >> 5 & 0x78
    if head == awaited:
        if int(now_ms) - int(partial.time_ms) > 50:
            return self._feed_any(frame, identifier)
    elif at != 0 or awaited >= 0 or end == 0 or end >= int(partial.room):
        return self._feed_any(frame, identifier)
    if size != 8:
        if at != end or size < 1 or size > 8:
            return self._feed_any(frame, identifier)
    whole = partial.buffer
    buffer = ptr8(whole)
    data = ptr8(payload)
    index = 0
    while index < size:
        buffer[at + index] = data[index]
        index += 1
    if at != end:
        partial.time_ms = now_ms
        partial.awaited = head + 0x1000
        return None
    partial.awaited = -1
    partial.newest = identifier
    if head & 0x20000:
        return self._open(head & 0x1FFE00FF, whole, at + size, partial.cites, now_ms)
    return self._on_message(whole, at + size)


@micropython.viper
def open_record(self, identifier, record, length, cites, now_ms):
    """`Channel._open` of a short record above the window of the present session, which it is not the first of."""
    session = self._session
    if not session:
        return self._open_any(identifier, record, length, cites, now_ms)
    rx = session.rx
    if not rx:
        return self._open_any(identifier, record, length, cites, now_ms)
    size = int(length) - 28
    source = ptr8(record)
    template = ptr8(rx.template)
    at = 0
    if size < 0 or size > 100:
        at = 9
    while at < 8:
        if source[at] == template[16 + at]:
            at += 1
        else:
            at = 9
    counter = source[8] << 24 | source[9] << 16 | source[10] << 8 | source[11]
    highest = int(rx.highest)
    if not rx.small:
        at = 9
    if at != 8 or source[8] >= 0x40 or counter <= highest or highest == 0:
        return self._open_any(identifier, record, length, cites, now_ms)
    if cites:
        if counter <= int(rx.strict):
            return self._open_any(identifier, record, length, cites, now_ms)
    shared = self._shared
    whole = shared.rx
    work = ptr8(whole)
    head = int(identifier)
    at = 0
    while at < 16:
        work[at] = template[at]
        at += 1
    work[1] = head >> 24
    work[2] = head >> 16
    work[3] = head >> 8
    work[4] = head
    work[11] = size
    end = size + 28
    at = 0
    while at < end:
        work[16 + at] = source[at]
        at += 1
    if not rx.open(whole, size, 12):
        return self._refuse(identifier, "tag")
    if counter == highest + 1:
        seen = ptr8(session.state)
        at = 96 + (counter >> 3 & 7)
        seen[at] = seen[at] | 1 << (counter & 7)
        rx.highest = counter
    else:
        rx.accept(counter)
    rx.recent = True
    self.last_opened_ms = now_ms
    views = shared.plain
    if cites:
        rx.strict = counter
        if size < 4:
            return self._refuse(identifier, "short")
        size -= 4
        if not session.is_fresh(shared.cited_counter(), now_ms):
            return self._refuse(identifier, "stale")
        views = shared.cited
    self._opened = int(self._opened) + 1 & 0x3FFFFFFF
    event = shared.event
    event.kind = "opened"
    event.arbitration_id = head ^ 0x20000
    event.counter = counter
    event.epoch = rx.epoch
    event.reason = ""
    event.data = b""
    if size:
        view = views.get(size)
        if not view and cites:
            view = shared.cited_of(size)
        elif not view:
            view = shared.plain_of(size)
        event.data = view
    return event
