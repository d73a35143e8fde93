"""Lines of a bus log (candump's form) and the transfers in it. Host only."""

from packtrust_host.demo.buslog import LogError, assemble, parse

COVERS = ("packtrust_host.demo.buslog:parse", "packtrust_host.demo.buslog:_", "packtrust_host.demo.buslog:assemble")
HEAP_MAX = 300000
HOST_ONLY = True


def _line(identifier, data, at_us=0, fd=""):
    sign = "##0" if fd else "#"
    return "(%d.%06d) can0 %s%s%s\n" % (at_us // 1000000, at_us % 1000000, identifier, sign, data)


def seeds():
    sealed = 0x502 << 18 | 1 << 17 | 5
    whole = "".join([_line("%08X" % (sealed | 0x400 | at << 12), "00" * (4 if at == 4 else 8)) for at in range(5)])
    yield whole.encode()
    yield (whole + whole).encode()
    yield whole[:-1].encode()
    lines = whole.splitlines(True)
    yield "".join(lines[:2] + lines[3:]).encode()
    yield "".join(lines[:2] + [lines[1]] + lines[2:]).encode()
    yield "".join(lines[:2] + [lines[2].replace("00" * 8, "00" * 3)]).encode()
    yield "".join([lines[0], lines[0].replace("00" * 8, "11" * 8)]).encode()
    for size, length in ((36, 48), (0, 8), (9, 8), (1, 8), (36, 48)):
        yield _line("%08X" % (sealed | size << 8), "00" * length, fd="x").encode() * 2
    yield _line("%08X" % (sealed | 0x800), "00" * 7 + "0100", fd="x").encode()
    isotp = "%08X" % (0x431 << 18 | 0x40)
    for frames in (
        ("0701020304050607",),
        ("1014010203040506", "21" + "00" * 7, "22" + "00" * 7),
        ("1014010203040506", "22" + "00" * 7),
        ("1014010203040506", "0201020000000000"),
        ("1014010203040506", "1014010203040506"),
        ("300000", "", "9900"),
    ):
        yield "".join([_line(isotp, data) for data in frames]).encode()
    yield _line(isotp, "003e" + "00" * 62, fd="x").encode()
    yield (_line("123", "0011") + "\n" + "(1.000000) can0 123#R\n" + _line("14C40005", "01" * 8)).encode()
    yield _line("123", "001").encode()
    yield b"(1.0) nonsense\n"


def take(data):
    lines = data.decode("latin-1").splitlines(True)
    try:
        frames = list(parse(lines))
    except LogError as error:
        assert "line " in str(error)
        return
    log = assemble("bus", frames)
    assert sum(len(transfer.payload) for transfer in log.transfers) <= len(data)
