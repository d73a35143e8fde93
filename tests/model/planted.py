"""Faults planted in the code as it runs, by exchanging a place in it (tests/weakening.py): each must be found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from model.rotations import Rotations
from model.sessions import Sessions
from weakening import Weakening


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault, the model that must find it, within `depth` steps of one of its roots, and what it must be found as."""

    name: str
    weakening: Weakening | None
    model: Callable[[], Any]
    depth: int
    found_as: str


def _channel(old: str, new: str) -> Weakening:
    return Weakening(("packtrust.channel", old, new))


# Of what both rotations have in common: a commit that the node believes in, and that its flash knows nothing of.
_WRITTEN = """
            self._write_relation(relation)
            self._committed = committed
        finally:
            relation.wipe()
"""
_READ = "            relation = kept.full()\n        except"
NOT_STORED = Weakening(
    ("packtrust_node.node", _WRITTEN, _WRITTEN.replace("_write_relation(", "_lost = (").replace(".wipe()", "")),
    ("packtrust_node.node", _READ, _READ.replace("kept.full()", "self._lost")),
)

FAULTS = (
    Fault(
        "the window moves before the tag is verified",
        _channel(
            '        if not rx.open(work, size, AAD_LENGTH):\n            return self._refuse(full_id, "tag")\n        rx.accept(counter)\n',
            '        rx.accept(counter)\n        if not rx.open(work, size, AAD_LENGTH):\n            return self._refuse(full_id, "tag")\n',
        ),
        Sessions,
        2,
        "changed the",
    ),
    Fault(
        "a session that is put away forgets its counter",
        Weakening(("packtrust.session", "        session.put(_TX_COUNTER, 4, self.latest)\n", "")),
        Sessions,
        3,
        "nonce repeated",
    ),
    Fault(
        "random numbers begin anew at each boot, and the boot counter is not in the handshake",
        Weakening(("packtrust.handshake", '            + pack(">II", boot_initiator, boot_responder)\n', "")),
        lambda: Sessions(faulty="rng"),
        3,
        "nonce repeated",
    ),
    Fault(
        "a session that is put away forgets what it has opened",
        Weakening(
            ("packtrust.session", "        session.put(_HIGHEST, 8, self.highest)\n", ""),
        ),
        Sessions,
        3,
        "accepted twice",
    ),
    Fault(
        "a reflected HELLO is accepted",
        Weakening(
            (
                "packtrust.handshake",
                '            self.reason = "handshake-role"  # a message of our own role: reflection\n            return None',
                "            return self._on_hello(payload)",
            )
        ),
        Sessions,
        3,
        "in session with nobody",
    ),
    Fault(
        "a HELLO replaces the live session before its sender has proved itself",
        _channel(
            "                self._pending = self._begin(handshake, now_ms)\n",
            "                self._session = self._begin(handshake, now_ms)\n",
        ),
        Sessions,
        2,
        "changed the",
    ),
    Fault(
        "citations are not looked at",
        _channel("            if not rx.session.is_fresh(cited, now_ms):", "            if False:"),
        Sessions,
        3,
        "ms old is obeyed",
    ),
    Fault(
        "commands need not be in order",
        _channel("        if cites and counter <= rx.strict:", "        if False:"),
        Sessions,
        4,
        "older command",
    ),
    Fault(
        "a HELLO is said once and never again",
        _channel(
            "            elif self._connecting:\n                self._hello()\n",
            "            elif self._connecting:\n                self._handshake_ms = now_ms\n",
        ),
        Sessions,
        3,
        "stuck",
    ),
    Fault(
        "a peer that goes on in the session before is left there",
        _channel("        if self._handshake is not None and rx.session is self._previous:\n", "        if False:\n"),
        lambda: Sessions((1, 1, 0, 0, 0, 0)),
        5,
        "stuck",
    ),
    Fault(
        "commit before confirm: the pack's, when it has the root",
        Weakening(
            (
                "packtrust_node.rotation",
                "        if exchange.agreed and not self.committed:",
                "        if exchange.root is not None and not self.committed:",
            )
        ),
        Rotations,
        2,
        "stuck",
    ),
    Fault(
        "lost commit: confirmed, and not stored",
        NOT_STORED,
        Rotations,
        2,
        "stuck",
    ),
    Fault(
        "the old epoch ends with the commit",
        Weakening(
            (
                "packtrust_node.rotation",
                "        relation.keep_epoch_in_use(old, self.neighbour.session_epoch)\n",
                "",
            )
        ),
        Rotations,
        2,
        "stuck",
    ),
    Fault(
        "commit before confirm: the app commits the initiator first",
        None,
        lambda: Rotations("app", hasty=True),
        3,
        "stuck",
    ),
    Fault(
        "lost commit: COMMITTED is said, and nothing stored",
        NOT_STORED,
        lambda: Rotations("app"),
        3,
        "stuck",
    ),
)
