"""The console of a virtual board: what its openers see, and what nobody sees."""

import asyncio
import os

import pytest

from packtrust_host.deploy.console import GREETING, ConsolePty

LIMIT_S = 10


def opened(console):
    return os.open(console.link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)


async def until_read(descriptor, count):
    """So many bytes, or what came within the limit."""
    loop = asyncio.get_running_loop()
    found = bytearray()
    enough = loop.create_future()

    def take():
        found.extend(os.read(descriptor, 4096))
        if len(found) >= count and not enough.done():
            enough.set_result(None)

    loop.add_reader(descriptor, take)
    try:
        await asyncio.wait_for(enough, LIMIT_S)
    finally:
        loop.remove_reader(descriptor)
    return bytes(found)


async def until(condition):
    for _ in range(LIMIT_S * 200):
        if condition():
            return
        await asyncio.sleep(0.005)  # the kernel has no event for a terminal that is opened
    raise AssertionError("never happened")


@pytest.fixture
def run(tmp_path):
    """Runs a coroutine with a console; `taken` is what its openers have written."""

    def run_(course):
        async def whole():
            taken = []
            console = ConsolePty(tmp_path / "console", taken.append)
            try:
                await course(console, taken)
            finally:
                console.close()

        asyncio.run(whole())

    return run_


def test_the_first_opener_gets_what_the_board_has_said_before(run):
    async def course(console, taken):
        console.write(b"hello\r\n")
        console.write(b"world\r\n")
        terminal = opened(console)
        assert await until_read(terminal, 14) == b"hello\r\nworld\r\n"
        console.write(b"more")
        assert await until_read(terminal, 4) == b"more"
        os.close(terminal)
        assert console.dropped == 0

    run(course)


def test_of_a_long_beginning_the_first_part_is_kept(run):
    async def course(console, taken):
        console.write(b"a" * GREETING)
        console.write(b"b")
        assert console.dropped == 1
        terminal = opened(console)
        assert await until_read(terminal, GREETING) == b"a" * GREETING
        os.close(terminal)

    run(course)


def test_between_two_openers_nothing_is_kept(run):
    async def course(console, taken):
        terminal = opened(console)
        os.write(terminal, b"x")
        await until(lambda: taken == [b"x"])
        os.close(terminal)
        await until(lambda: not console._opened)
        console.write(b"unheard")
        assert console.dropped == 7
        terminal = opened(console)
        await until(lambda: console._opened)
        console.write(b"heard")
        assert await until_read(terminal, 5) == b"heard"
        os.close(terminal)

    run(course)
