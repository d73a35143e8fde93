"""Instructions of each budgeted path, on the virtual Cortex-M4 under -icount: one JSON line a row.

Each function is one part, run on a freshly started board (PARTS in cortex_m4.py): all together do not fit its heap.

The clock is a counter of virtual time that QEMU derives from executed instructions, so the figures repeat exactly.
What a row reports, in ticks of `canboard.ticks()`, is net of an empty call.
"""

import gc
import json

import canboard

# Each part imports what it measures: the heap is a board's.

ROUNDS = 20

KEY = bytes(range(32))
SECRET = bytes(range(32, 64))
STATUS = 0x502 << 18 | 5  # telemetry, module 5 to its pack
DATA = bytes(range(8))
AAD_LENGTH = 13
AT_IV = 16
AT_DATA = 28
TAG = 16

_drawn = [0]
_results = []


def entropy(count):
    """Different bytes each time; nothing here is secret."""
    _drawn[0] += 1
    return bytes([(_drawn[0] + at) & 255 for at in range(count)])


def nothing():
    """The empty call."""


def anything(_):
    """What every result is."""


def count(call, prepare=nothing, rounds=ROUNDS, check=anything):
    """Median ticks of `call()`, the reading of the counter included. Not counted: `prepare()` before each, and after it
    `check(result)`, which raises if that is not as it should be.
    """
    ticks = canboard.ticks
    figures = []
    prepare()
    check(call())
    for _ in range(rounds):
        prepare()
        gc.collect()
        start = ticks()
        result = call()
        figures.append((ticks() - start) & 0x3FFFFFFF)
        check(result)
    figures.sort()
    return figures[len(figures) // 2]


def report(row, call, prepare=nothing, rounds=ROUNDS, check=anything):
    """Measure one row."""
    gc.collect()
    _results.append({"row": row, "ticks": count(call, prepare, rounds, check) - _EMPTY})


def say():
    """Print the rows: when all are measured, for a line on its way to the console is interrupts to count."""
    for result in _results:
        print(json.dumps(result))


def work_buffer(size):
    """AAD padded to 16 bytes, IV, data, room for the tag."""
    work = bytearray(AT_DATA + size + TAG)
    work[:AAD_LENGTH] = bytes(range(AAD_LENGTH))
    work[AT_IV:AT_DATA] = bytes(range(12))
    return work


def aead(backend, sizes=(8, 64)):
    """Seal, open and key set-up of one backend."""
    from packtrust.crypto import AESGCM, gcm_tables

    AESGCM(KEY, backend).wipe()  # the tables all keys share
    gcm_tables._free.clear()  # a wiped key's memory, which the next one would take
    gc.collect()
    before = gc.mem_alloc()
    cipher = AESGCM(KEY, backend)
    gc.collect()
    _results.append({"row": "heap a key, %s" % backend, "bytes": gc.mem_alloc() - before})
    shared = gcm_tables.shared_bytes()
    if shared:  # of a kernel's; the pure form has tables of its own
        _results.append({"row": "tables all keys share, %s" % backend, "bytes": sum(shared.values())})
    for size in sizes:
        work = work_buffer(size)
        report("seal %d B, %s" % (size, backend), lambda: cipher.seal_in_place(work, size, AAD_LENGTH))  # noqa: B023
        work = work_buffer(size)
        cipher.seal_in_place(work, size, AAD_LENGTH)
        sealed = bytes(work)

        def restore():
            work[:] = sealed  # noqa: B023

        def opened():
            if not cipher.open_in_place(work, size, AAD_LENGTH):  # noqa: B023
                raise ValueError("%s refuses what it sealed" % backend)

        report("open %d B, %s" % (size, backend), opened, restore)
    report("key set-up, %s" % backend, lambda: AESGCM(KEY, backend), rounds=5)


def channels():
    """(pack, module): two channels in session."""
    from packtrust import INITIATOR, RESPONDER, Channel

    pack = Channel(SECRET, INITIATOR, 5, lambda: 0, entropy, "pack", "module")
    module = Channel(SECRET, RESPONDER, 5, lambda: 0, entropy, "module", "pack")
    pack.connect()
    for _ in range(4):
        for frame in pack.outgoing():
            module.feed(frame)
        for frame in module.outgoing():
            pack.feed(frame)
    if not (pack.established and module.established):
        raise ValueError("no session")
    return pack, module


def channel(backend):
    """A record through both ends, and forged ones that the receiver refuses, by reason."""
    from packtrust import OPENED
    from packtrust.arbitration import ENCRYPTED
    from packtrust.crypto import use
    from packtrust.segmentation import Segmenter

    use(backend)
    pack, module = channels()
    report("Channel.seal of 8 B, " + backend, lambda: module.seal(STATUS, DATA))
    frames = []

    def sealed():
        frames.clear()
        for frame in module.seal(STATUS, DATA):
            frames.append(frame.copy())

    # No more than the calls: with a `raise` in it this function's own state would need heap.
    def fed():
        for frame in frames:
            event = pack.feed(frame)
        return event

    def opened(event):
        if event is None or event.kind != OPENED:
            raise ValueError("the record did not open: %r" % event)

    report("Channel.feed of five frames, " + backend, fed, sealed, check=opened)
    newest = bytes(frames[0].data) + bytes(frames[1].data[:4])  # the IV of the record that was opened last
    segmenter = Segmenter()
    for reason, head in (
        ("tag", newest[:8] + b"\0\0\1\0"),
        ("unknown-session", b"none" + newest[4:]),
        ("replay", newest),
    ):

        def forged():
            # Cut anew, for the toggle bit alternates: the same frames are what CAN itself may repeat.
            frames.clear()
            frames.extend(segmenter.split(STATUS | ENCRYPTED, head + bytes(24)))  # noqa: B023

        def refused(event):
            if event is None or event.reason != reason:  # noqa: B023
                raise ValueError("not refused: %r" % event)

        report("refused: %s, five frames, %s" % (reason, backend), fed, forged, check=refused)


def handshake(backend):
    """A handshake, by side, up to the first record: its messages, and one direction's keys made ready."""
    from packtrust import ESTABLISHED, INITIATOR, OPENED, RESPONDER, Channel
    from packtrust.crypto import AESGCM, use

    use(backend)
    AESGCM(KEY, backend).wipe()  # the tables all keys share
    clock = [0]
    command = 0x514 << 18 | 5
    pack = Channel(SECRET, INITIATOR, 5, lambda: clock[0], entropy, "pack", "module")
    module = Channel(SECRET, RESPONDER, 5, lambda: clock[0], entropy, "module", "pack")
    frames = []

    def fed(channel, kind):
        event = None
        for frame in frames:
            event = channel.feed(frame)
        if kind and (event is None or event.kind != kind):
            raise ValueError("no %s: %r" % (kind, event))

    # Each step of one side leaves its frames to the next one of the other.
    steps = (
        (pack, pack.connect),
        (module, lambda: fed(module, "")),
        (pack, lambda: fed(pack, ESTABLISHED)),
        (module, lambda: fed(module, ESTABLISHED)),
        (pack, lambda: [frame.copy() for frame in pack.seal(command, bytes(4))]),
        (module, lambda: fed(module, OPENED)),
    )

    def upto(step):
        clock[0] += 2000
        pack.outgoing()  # what the step that was counted has said
        module.outgoing()
        for channel, act in steps[:step]:
            said = act() or channel.outgoing()
            frames.clear()
            frames.extend(said)

    totals = {"initiator": 0, "responder": 0}
    for step in range(len(steps)):
        side = "initiator" if steps[step][0] is pack else "responder"
        totals[side] += count(steps[step][1], lambda: upto(step)) - _EMPTY  # noqa: B023
    for side in totals:
        _results.append({"row": "handshake to the first record, %s, %s" % (side, backend), "ticks": totals[side]})


def session_keys():
    """From the root of an epoch to both directions' record keys, as a handshake derives them."""
    from packtrust.handshake import INITIATOR, Handshake

    pack, _ = channels()
    handshake = Handshake(INITIATOR, SECRET, pack.relationship, 1, 0, bytes(32), 1, entropy(16))
    handshake._bind(1, 1, bytes(16), bytes(16))
    report("session keys of one channel", handshake._derive)


def curve(form):
    """X25519 in one of its forms, and the opening of a package with it by a node, which knows its public key."""
    from packtrust.crypto import curve25519, hpke, x25519, x25519_public

    curve25519.use(form)
    private = bytes(range(32))
    peer = x25519_public(bytes(range(64, 96)))
    report("X25519, " + form, lambda: x25519(private, peer), rounds=3)
    recipient, public = hpke.derive_key_pair(b"recipient" * 4)
    sender, sender_public = hpke.derive_key_pair(b"the sender" * 4)
    psk = {"psk": b"0123456789abcdef", "psk_id": b"device"}
    enc, ciphertext, _ = hpke.seal(public, b"info", b"aad", bytes(300), entropy=entropy(32), sk_s=sender, **psk)
    report(
        "HPKE AuthPSK open of one package, " + form,
        lambda: hpke.open(enc, recipient, b"info", b"aad", ciphertext, pk_s=sender_public, pk_r=public, **psk),
        rounds=3,
    )


def epoch_exchange(form):
    """All one end computes for a new epoch of a pair without an app: X25519, extracts, proofs; no flash."""
    from packtrust import rotation
    from packtrust.crypto import curve25519, x25519, x25519_public
    from packtrust.handshake import INITIATOR, RESPONDER
    from packtrust.keys import Relationship, fingerprint
    from packtrust.pairing import PairExchange

    curve25519.use(form)
    ours, theirs, salt = bytes(range(32)), bytes(range(64, 96)), bytes(range(96, 128))
    public, peer = x25519_public(ours), x25519_public(theirs)
    relationship = Relationship("COMP-A", "COMP-B", "lct-1", fingerprint(public), fingerprint(peer))

    def begun(role, private, other, ephemeral):
        dh_static = x25519(private, other)
        secret = rotation.next_secret(SECRET, relationship, 1, salt)
        return PairExchange(role, secret, dh_static, relationship, 2, ephemeral)

    module = begun(RESPONDER, theirs, public, SECRET)
    pack = begun(INITIATOR, ours, peer, KEY)
    answer = module.accept(pack.public)
    agreed = module.feed(pack.feed(answer))

    def exchanged():
        end = begun(INITIATOR, ours, peer, KEY)
        end.feed(answer)
        end.feed(agreed)
        if not end.agreed:
            raise ValueError("the ends do not agree")

    report("epoch exchange of one end, " + form, exchanged, rounds=3)


def scrub():
    """Overwriting a KB of free heap, in one piece and in pieces of two blocks; the search for it included."""
    from packtrust_node.scrub import free_heap

    def a_kilobyte(row):
        ticks = count(free_heap, rounds=3) - _EMPTY
        gc.collect()
        _results.append({"row": row, "ticks": ticks * 1024 / gc.mem_free()})

    a_kilobyte("overwriting free heap, a KB in one piece")
    kept = []
    between = []
    while gc.mem_free() > 20000:
        kept.append(bytearray(16))
        between.append(bytearray(32))
    between = None
    a_kilobyte("overwriting free heap, a KB in small pieces")
    return kept


def reference():
    """The same seal by mbedTLS in C, called from Python, where the firmware has it."""
    try:
        import cgcm
    except ImportError:
        return
    iv = bytes(12)
    aad = bytes(AAD_LENGTH)
    tag = bytearray(TAG)
    report("key set-up, mbedTLS in C", lambda: cgcm.setkey(KEY))
    for size in (8, 64):
        data = bytes(size)
        out = bytearray(size)
        report("seal %d B, mbedTLS in C" % size, lambda: cgcm.seal(iv, aad, data, out, tag))  # noqa: B023


def default():
    """The backend the board chooses by itself."""
    from packtrust.crypto import AESGCM

    _results.append({"row": "default backend", "name": AESGCM(KEY).backend})


_EMPTY = count(nothing)
