"""What lies on a node's flash: the very files of firmware/ and shared/, where main.py finds them."""

from __future__ import annotations

import json
import os
import random
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import packtrust
from packtrust.policy import DEFAULT_PROFILE, profile

CHECKOUT = Path(__file__).resolve().parents[3]
# Of the core, what no board needs: types for checkers and the host's crypto library.
HOST_ONLY = ("_typing.py", "crypto/host.py")

NodeConfig = dict[str, Any]


class SetupError(Exception):
    """The virtual pack cannot be set up; the text says why and what to do."""


def firmware_folder() -> Path:
    """The folder with main.py and packtrust_node/. SetupError if this is not a checkout."""
    folder = CHECKOUT / "firmware"
    if not (folder / "main.py").is_file():
        raise SetupError("no firmware in %s: the virtual pack needs a checkout of packtrust" % folder)
    return folder


def deployed_files() -> dict[str, Path]:
    """Source of each file on a node's flash, by its path there."""
    files = {}
    firmware = firmware_folder()
    for source in sorted(firmware.rglob("*.py")):
        files[source.relative_to(firmware).as_posix()] = source
    core = Path(packtrust.__file__).resolve().parent
    for source in sorted(core.rglob("*.py")):
        name = source.relative_to(core).as_posix()
        if name not in HOST_ONLY:
            files["lib/packtrust/" + name] = source
    return files


def make_flash(folder: Path, config: NodeConfig, extra: Mapping[str, str | os.PathLike[str]] | None = None) -> None:
    """Fill a node's flash; `extra` adds or replaces files, by their path on the flash."""
    for name, source in deployed_files().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    for name, replacement in (extra or {}).items():
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise SetupError("overlay %s leaves the node's flash" % name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(replacement, target)
    (folder / "node.json").write_text(json.dumps(config))


def node_configs(
    modules: int,
    seed: int | str,
    *,
    pack: int = 0,
    bitrate: int = 500_000,
    topology: str = "parallel",
    clear_first_transfer: bool = False,
    cells: Mapping[str, Any] | None = None,
    fd: bool = False,
    vcu_fd: bool = False,
    data_bitrate: int = 2_000_000,
    policy: str = DEFAULT_PROFILE,
    mixed_bus: bool = False,
) -> dict[str, NodeConfig]:
    """node.json of every node: "pack", "module1" .. "moduleN"; unique IDs and cells from the seed.

    cells   keys of each module's "cells" part that differ from the default (see
            `packtrust_node.cells`), and per module `{"module2": {...}}`.
    fd      CAN FD on the module bus; vcu_fd: on the VCU bus; data_bitrate: of both, bit/s.
    policy  of the VCU bus; mixed_bus: old modules are on the module bus (docs/policy.md).
    """
    profile(policy)  # PolicyError if there is none
    if not 1 <= modules <= 31:
        raise SetupError("a pack has 1 to 31 modules, not %d" % modules)
    if topology not in ("parallel", "series"):
        raise SetupError("topology is parallel or series, not %r" % topology)
    numbers = random.Random("%s/unique ids" % seed).sample(range(0x00100000, 0x7FFFFFFF), 32)
    shared = {key: value for key, value in (cells or {}).items() if not key.startswith("module")}
    common: dict[str, Any] = {"bitrate": bitrate, "clear_first_transfer": clear_first_transfer}
    if fd or vcu_fd:
        common |= {"fd": fd, "data_bitrate": data_bitrate}
    if mixed_bus:
        common["mixed_bus"] = True
    configs: dict[str, NodeConfig] = {
        "pack": {
            "role": "pack",
            "unique_id": numbers[0],
            "serial": "MODBATT-PACK-RC001-%03d" % (pack + 1),
            "profile": "gateway",
            "pack": pack,
            "topology": topology,
            **common,
            **({"vcu_fd": True} if vcu_fd else {}),
            **({"policy": policy} if policy != DEFAULT_PROFILE else {}),
        }
    }
    for number in range(1, modules + 1):
        own = dict((cells or {}).get("module%d" % number, {}))
        configs["module%d" % number] = {
            "role": "module",
            "unique_id": numbers[number],
            "serial": "MODBATT-MOD-RC001-%03d" % number,
            "profile": "operational",
            "pack": pack,
            "cells": {"source": "ecm", "count": 12, "seed": number, "load_ma": -20000} | shared | own,
            **common,
        }
    return configs


BOARDS = ("unix", "cortex-m4")


def parse_boards(words: Sequence[str]) -> dict[str, str | list[str]]:
    """What `--board` says: `pack=cortex-m4`, `module=unix,cortex-m4`, `all=cortex-m4/plain`. SetupError if unclear."""
    found: dict[str, str | list[str]] = {}
    for word in words:
        name, _, kinds = word.partition("=")
        given = kinds.split(",")
        if not name or not all(given):
            raise SetupError("--board is WHO=BOARD, e.g. pack=cortex-m4 or module=unix,cortex-m4, not %r" % word)
        found[name] = given if len(given) > 1 else given[0]
    return found


def board_kinds(names: Sequence[str], wanted: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    """The kind of board of each node: `unix`, or `cortex-m4`, or that with a firmware variant: `cortex-m4/plain`.

    wanted   `pack`, `module`, `all` or a node's name -> kind; of `module` also one kind each, in turn. The more exact
             word holds, what nothing names is `unix`. SetupError for a word or kind there is none of.
    """
    kinds = dict.fromkeys(names, "unix")
    modules = [name for name in names if name != "pack"]
    for word in sorted(wanted, key=lambda item: (item != "all", item in names and item != "pack")):
        kind = wanted[word]
        given = [kind] if isinstance(kind, str) else list(kind)
        if word == "module":
            targets = modules
        elif word == "all":
            targets = list(names)
        elif word in names:
            targets = [word]
        else:
            raise SetupError("no node %r: name pack, module, all, or one of %s" % (word, ", ".join(names)))
        if not 0 < len(given) <= len(targets):
            raise SetupError("%d boards for %s, but there are %d" % (len(given), word, len(targets)))
        for item in given:
            if item.split("/")[0] not in BOARDS or item.startswith("unix/"):
                raise SetupError("no board %r: a node runs on %s" % (item, " or ".join(BOARDS)))
        if len(given) == 1:
            given *= len(targets)
        kinds.update(zip(targets, given, strict=False))
    return kinds


def find_micropython() -> str:
    """The interpreter: $MICROPYTHON, else the private one, else one on the PATH.

    SetupError if there is none. `boards/unix/board.toml` has the names.
    """
    with (CHECKOUT / "boards" / "unix" / "board.toml").open("rb") as file:
        interpreter = tomllib.load(file)["interpreter"]
    named: str | None = os.environ.get(interpreter["environment"])
    if named:
        return named
    private = CHECKOUT / interpreter["private"]
    if private.is_file():
        return str(private)
    found: str | None = shutil.which(interpreter["command"])
    if found is None:
        raise SetupError("no MicroPython found: run `make micropython`, or set %s to one" % interpreter["environment"])
    return found
