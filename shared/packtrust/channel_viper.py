# mypy: ignore-errors
"""The hot path of a `Channel` in MicroPython's viper: what it does for a record that is as it should be.

Never imported by CPython or CircuitPython; `channel` asks for it, and puts these functions in the place of its methods
of the same names. Those are the reference: whatever is not as it should be goes to them (`_seal`, `_feed_any`,
`_open`), before anything was changed. Integers are 32 bits here: counters beyond 2^30 go there too.
"""

import micropython

# Of the module, for here builtins are looked for last and slowly; and `is None` does not compile, while the truth of an
# instance is asked of its class.
_len = len
_NONE = None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    ptr8 = bytearray
    ptr32 = array


@micropython.viper
def seal(self, arbitration_id, data):
    """`Channel.seal` of a short record, with the sending direction ready for use, in classic frames."""
    session = self._session
    if session is _NONE:
        return self._seal(arbitration_id, data)
    tx = session.tx
    head_then = self._heads.get(arbitration_id)
    if head_then is _NONE or tx is _NONE:
        return self._seal(arbitration_id, data)
    head = int(head_then)
    counter = int(tx.latest) + 1
    size = int(_len(data))
    cited = 0
    start = 28
    if head & 0x100:
        rx = session.rx
        if rx is _NONE:
            return self._seal(arbitration_id, data)
        cited = int(rx.highest)
        start = 32
    last = size + start - 1 >> 3
    counts = ptr32(self._counts)
    if counter < 1 or counter > counts[5] or size + start - 28 >= counts[6]:
        return self._seal(arbitration_id, data)
    now_ms = self._clock()
    if now_ms >= tx.ends_ms:  # as objects: 32 bits would take a long sleep for none
        tx.turn(now_ms)
    tx.latest = counter
    tx.recent = True
    counts[1] = counts[1] + 1 & 0x3FFFFFFF
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
    if frames is _NONE:
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
    """`Channel.feed` of the chunks of a stream that is known, and `Channel._open` of the record they end up as.

    The record is short, above the window of the present session, and not the first one in it.
    """
    identifier = frame.arbitration_id
    head = int(identifier)
    if head & 0xFF != int(self.node):
        return None
    partial = self._partial_of(head & 0x1FFE00FF)
    if partial is _NONE:
        return self._feed_any(frame, identifier)
    marks = ptr32(partial.marks)
    payload = frame.data
    size = int(_len(payload))
    clock = self._clock()
    now_ms = int(clock) & 0x3FFFFFFF
    at = head >> 9 & 0x78
    end = head >> 5 & 0x78
    if head == marks[0]:
        if now_ms - marks[2] & 0x3FFFFFFF > 50:
            return self._feed_any(frame, identifier)
    elif at != 0 or marks[0] != 0 or end == 0 or end >= int(partial.room):
        if head + 0x1000 == marks[0] and size == 8:
            source = ptr8(partial.buffer)
            data = ptr8(payload)
            index = 0
            while index < 8 and source[at + index] == data[index]:
                index += 1
            if index == 8:
                return None  # once more what was taken last
        if marks[0] == 0 and at != 0 and at <= end and (size == 8 or (at == end and size > 0 and size < 8)):
            return None  # the rest of a record whose beginning was lost, or once more what is complete
        return self._feed_any(frame, identifier)
    if size != 8:
        if at != end or size < 1 or size > 8:
            return self._feed_any(frame, identifier)
    whole = partial.buffer
    source = ptr8(whole)
    data = ptr8(payload)
    end -= at
    index = 0
    while index < size:
        source[at] = data[index]
        at += 1
        index += 1
    if end != 0:
        marks[2] = now_ms
        marks[0] = head + 0x1000
        return None
    marks[0] = 0
    marks[1] = head
    if head & 0x20000 == 0:
        return self._on_message(whole, at)

    # The record is complete.
    head = head & 0x1FFE00FF
    cites = partial.cites
    session = self._session
    if session is _NONE:
        return self._open(head, whole, at, cites, clock)
    rx = session.rx
    if rx is _NONE:
        return self._open(head, whole, at, cites, clock)
    size = at - 28
    template = ptr8(rx.template)
    at = 0
    if size < 0 or size > 100 or source[8] >= 0x40:
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
    if cites:
        if counter <= int(rx.strict):
            at = 9
    if at != 8 or counter <= highest or highest == 0:
        # What a flood is made of is refused here, for less than it costs to open a record.
        if size >= 0:
            at = source[0] ^ template[16] | source[1] ^ template[17]
            at |= source[2] ^ template[18] | source[3] ^ template[19]
            if at != 0:
                if self._pending is _NONE:
                    if self._previous is _NONE:
                        return self._refuse(head, "unknown-session")
            elif counter <= highest and source[4] | source[5] | source[6] | source[7] | source[8] >> 6 == 0:
                reason = rx.refusal(counter)
                if int(_len(reason)) != 0:
                    return self._refuse(head, reason)
        return self._open(head, whole, size + 28, cites, clock)
    shared = self._shared
    buffer = shared.rx
    work = ptr8(buffer)
    index = 0
    while index < 16:
        work[index] = template[index]
        index += 1
    work[1] = head >> 24
    work[2] = head >> 16
    work[3] = head >> 8
    work[4] = head
    work[11] = size
    at = size + 28
    index = 0
    while index < at:
        work[16 + index] = source[index]
        index += 1
    if not rx.open(buffer, size, 12):
        return self._refuse(head, "tag")
    if counter == highest + 1:
        seen = ptr8(session.state)
        at = 96 + (counter >> 3 & 7)
        seen[at] = seen[at] | 1 << (counter & 7)
        rx.highest = counter
    else:
        rx.accept(counter)
    rx.recent = True
    counts = ptr32(self._counts)
    counts[2] = now_ms
    at = 28
    if cites:
        rx.strict = counter
        if size < 4:
            return self._refuse(head, "short")
        at = 0
        tx = session.tx
        if tx is not _NONE:
            # Sent in the present step of the sent times: that is less than four seconds ago, or asked below.
            index = work[28] << 24 | work[29] << 16 | work[30] << 8 | work[31]
            if index <= int(tx.latest) and index > int(tx.before):
                if clock <= tx.stale_ms:  # as objects: 32 bits would take weeks for no time
                    at = 32
        if at == 0:
            if not session.is_fresh(shared.cited_counter(), clock):
                return self._refuse(head, "stale")
            at = 32
        size -= 4
    counts[0] = counts[0] + 1 & 0x3FFFFFFF
    event = shared.opened
    event.arbitration_id = head ^ 0x20000
    event.counter = counter
    event.epoch = rx.epoch
    if size > 8:
        event.data = shared.view(at, size)
    elif at == 28:
        event.data = shared.plain[size]
    else:
        event.data = shared.cited[size]
    return event
