"""A store in raw flash whose chip may hold anything: mounted, read, written, and mounted again."""

from fuzz.source import Source
from nor_flash import NorFlash
from packtrust._compat import sha256
from packtrust.errors import StorageError
from packtrust_node.flash_slots import FlashSlots

COVERS = (
    "packtrust_node.flash_slots:FlashSlots._mount",
    "packtrust_node.flash_slots:FlashSlots._generation_of",
    "packtrust_node.flash_slots:FlashSlots._good_entry",
    "packtrust_node.flash_slots:FlashSlots._entry",
    "packtrust_node.flash_slots:FlashSlots._find",
    "packtrust_node.flash_slots:FlashSlots._in_force",
    "packtrust_node.flash_slots:FlashSlots.names",
    "packtrust_node.flash_slots:FlashSlots.read",
)
HEAP_MAX = 120000

_BLOCKS = 2
_SIZE = 512
_NAMES = ("boot.a", "boot.b", "identity.a")


def _chip(fill):
    """A chip after `fill` has used its slots."""
    flash = NorFlash(_BLOCKS, _SIZE)
    fill(FlashSlots(flash))
    return bytes(flash.data)


def _used(slots):
    slots.write("boot.a", b"1234")
    slots.write("identity.a", bytes(70))
    slots.write("boot.b", b"5678")
    slots.write("boot.a", b"9abc")
    slots.remove("boot.b")


def _moved(slots):
    for number in range(20):
        slots.write("boot.a", bytes((number,)) * 20)
        slots.write("boot.b", bytes((number,)) * 20)


def _packed(image):
    """An image as runs: what is erased costs two bytes."""
    out = b""
    at = 0
    while at < len(image):
        end = at
        erased = image[at] == 0xFF
        while end < len(image) and (image[end] == 0xFF) == erased and end - at < 127:
            end += 1
        out += bytes((end - at | (0x80 if erased else 0),)) + (b"" if erased else image[at:end])
        at = end
    return out


def seeds():
    yield b""
    for fill in (_used, _moved):
        image = _chip(fill)
        yield _packed(image)
        for at in (0, 4, 5, 6, 8, 12, 20, 24, 25, 26, 28, 40, 60, _SIZE, _SIZE + 4, _SIZE + 30):
            for change in (0, image[at] & 0xF0, 0xFF):
                yield _packed(image[:at] + bytes((change,)) + image[at + 1 :])
    # Two banks with a header, as a power cut leaves them; then a format and sizes of others.
    first = _chip(_used)
    second = _chip(_moved)
    yield _packed(first[:_SIZE] + second[_SIZE:])
    yield _packed(second[:_SIZE] + first[:_SIZE])
    for offset, value in ((4, 2), (5, 16), (6, 3)):
        head = bytearray(first[:12])
        head[offset] = value
        yield _packed(bytes(head) + sha256(head).digest()[:8] + first[20:])


def take(data):
    source = Source(data)
    image = bytearray(b"\xff" * (_BLOCKS * _SIZE))
    at = 0
    while source.left and at < len(image):
        head = source.number()
        if not head & 0x80:
            run = source.take(min(head, len(image) - at))
            image[at : at + len(run)] = run
        at += head & 0x7F
    flash = NorFlash(_BLOCKS, _SIZE, data=image)
    try:
        slots = FlashSlots(flash)
    except StorageError:
        return  # of another format
    for name in slots.names():
        assert slots.read(name) is not None
    for name in _NAMES:
        slots.read(name)
    try:
        slots.write("boot.a", b"next")
    except OSError:
        return  # no room
    assert FlashSlots(flash.copy()).read("boot.a") == b"next"
