"""Policy legacy-vcu: what an old VCU may do in clear (docs/policy.md). Loaded where node.json asks for it, and audited.

Its COMMAND and KEEP_ALIVE are 11-bit frames that anybody on the bus could have sent. They keep alive what the VCU
itself raised, and they lower. They raise only while a grant of the app is in force, and no higher than it says; a grant
ends by its time, by the next one, and with the pack's RAM.
"""

from packtrust._compat import const
from packtrust.messages.bases import COMMAND
from packtrust.messages.compact import decode
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust_node.slots import WANTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer
    from packtrust_node.pack import PackNode

GRANT_MAX_S = const(3600)


class LegacyVcu:
    """See the module's docstring.

    commands   clear commands that changed something since boot
    """

    def __init__(self, pack: "PackNode") -> None:
        self.commands = 0
        self._pack = pack
        self._granted = STATE_OFF
        self._until_ms = 0
        self._refusing = False  # one line for a row of equal refusals
        pack.env.log("audit: policy legacy-vcu: an old VCU is heard in clear")

    def left_s(self) -> int:
        """How long the grant still holds, s; 0 without one."""
        if self._granted == STATE_OFF:
            return 0
        return max(0, (self._until_ms - self._pack.env.now_ms() + 999) // 1000)

    def grant(self, max_state: int, seconds: int) -> bool:
        """The app lets the VCU raise the pack up to `max_state` for so long, at most an hour; 0 s ends a grant.

        False if it cannot be granted.
        """
        if max_state > STATE_ON or seconds > GRANT_MAX_S:
            return False
        now_ms = self._pack.env.now_ms()
        self._granted = max_state if seconds else STATE_OFF
        self._until_ms = now_ms + 1000 * seconds
        self._refusing = False
        self._pack.env.log("audit: the old VCU may raise to state %d for %d s" % (self._granted, seconds))
        return True

    def revoke(self) -> None:
        """The app that granted is no owner any more."""
        self._granted = STATE_OFF

    def tick(self) -> None:
        """Notice the end of a grant."""
        if self._granted != STATE_OFF and not self.left_s():
            self._granted = STATE_OFF
            self._pack.env.log("audit: the old VCU's grant has ended")

    def take(self, base: int, data: "Buffer") -> None:
        """Take COMMAND or KEEP_ALIVE."""
        pack = self._pack
        values = decode("COMMAND" if base == COMMAND else "KEEP_ALIVE", data)
        if values is None:
            pack.count("length")
            return
        pack.commands.vcu_heard()
        if base != COMMAND:
            return
        state = STATE_OFF if values["isolation"] else values["contactor_state"]
        lower = raised = False
        for slot in pack.keyed_slots():
            lower = lower or slot.row[WANTED] > state
            raised = raised or slot.row[WANTED] < state
        if lower:
            self._changed("lowered", state)
            pack.commands.lower(state)
        if not raised or state == STATE_OFF:
            return
        self.tick()
        if state > self._granted or pack.limp.active:
            pack.count("legacy-refused")
            if not self._refusing:
                self._refusing = True
                pack.env.log("audit: the old VCU's command to raise to state %d is refused" % state)
            return
        self._refusing = False
        self._changed("raised", state)
        pack.commands.raise_for_vcu(state, values["hv_bus_mv"])

    def _changed(self, how: str, state: int) -> None:
        self.commands += 1
        self._pack.count("legacy-command")
        self._pack.env.log("audit: %s to state %d by a clear command" % (how, state))
