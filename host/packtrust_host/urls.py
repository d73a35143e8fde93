"""One text for a python-can bus: `interface:channel?option=value&...`, e.g. `slcan:/dev/ttyACM0?bitrate=500000`."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import can

DEFAULT_BITRATE = 500_000


class BusUrlError(ValueError):
    """The text does not name a bus, or the bus cannot be opened; the message says what to do."""


def _value(text: str) -> int | float | bool | str:
    for convert in (lambda t: int(t, 0), float):
        try:
            return convert(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def parse_bus_url(url: str) -> tuple[str, str, dict[str, Any]]:
    """(interface, channel, options) of a bus URL. Raises BusUrlError."""
    interface, separator, rest = url.partition(":")
    channel, _, query = rest.partition("?")
    if not separator or not interface or not channel:
        raise BusUrlError(
            f"{url!r} names no CAN bus: write interface:channel, for example slcan:/dev/ttyACM0?bitrate=500000"
        )
    options: dict[str, Any] = {"bitrate": DEFAULT_BITRATE}
    options.update((name, _value(text)) for name, text in parse_qsl(query, keep_blank_values=True))
    if interface == "slcan":
        # python-can waits two seconds after opening, for boards that reset then; ask for it by sleep_after_open=2.
        options.setdefault("sleep_after_open", 0.0)
    return interface, channel, options


def open_bus(url: str) -> can.BusABC:
    """The python-can bus of a URL. Raises BusUrlError if it cannot be opened."""
    interface, channel, options = parse_bus_url(url)
    try:
        return can.Bus(interface=interface, channel=channel, **options)
    except (can.CanError, OSError, ValueError, TypeError) as error:
        raise BusUrlError(
            f"cannot open {url}: {error}. Is the adapter plugged in, free, and yours to open (group dialout)?"
        ) from error
