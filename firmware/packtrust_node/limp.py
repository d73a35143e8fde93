"""Limp mode of a pack: half of its modules or more are silent, so the others carry little, and not for long.

Entered when nothing authentic has come from half of the keyed modules for 4 s; frames that prove nothing neither enter
nor leave it. In limp mode every module limits its current (the heartbeat and the polls say so), an old VCU raises
nothing, and after 30 s without a new command of the app no module is above Standby. Left when more than half have been
heard for 10 s without a break; limits are then as the app set them, and states are where they are.
"""

from packtrust._compat import const
from packtrust.messages.table import STATE_STANDBY
from packtrust_node.slots import LOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust_node.pack import PackNode

STANDBY_MS = const(30000)
# Twice as long as silence takes to be noticed, and a bit: who comes and goes does not end it.
LEAVE_MS = const(10000)


class Limp:
    """See the module's docstring.

    active    whether the pack is in limp mode
    entered   how often since boot
    """

    def __init__(self, pack: "PackNode") -> None:
        self.active = False
        self.entered = 0
        self._pack = pack
        self._since_ms = 0  # entered, or the app's last command above Standby
        self._silent_ms = 0  # when half were silent last

    def renew(self, now_ms: int) -> None:
        """The app has commanded a state above Standby: it knows, and has 30 s more."""
        self._since_ms = now_ms

    def tick(self, now_ms: int) -> None:
        """Call every 50 ms."""
        pack = self._pack
        lost = 0
        slots = pack.keyed_slots()
        for slot in slots:
            if slot.row[LOST]:
                lost += 1
        if lost and 2 * lost >= len(slots):
            self._silent_ms = now_ms
            if not self.active:
                self.active = True
                self.entered += 1
                pack.count("limp")
                self._since_ms = now_ms
                self._tell("limp mode: %d of %d modules are silent" % (lost, len(slots)))
        elif self.active and now_ms - self._silent_ms >= LEAVE_MS:
            self.active = False
            self._tell("limp mode has ended")
        if self.active and now_ms - self._since_ms >= STANDBY_MS:
            pack.commands.lower(STATE_STANDBY)

    def _tell(self, text: str) -> None:
        pack = self._pack
        pack.env.log(text)
        pack.broadcast.limp = self.active
        pack.broadcast.send()
