"""The pack's broadcast: its heartbeat under a group key, and who is given that key.

The key is drawn when the first module is there, given to each over its own channel, and drawn anew when one leaves:
its keys are gone or replaced, it was released, or nothing authentic has come from it for 4 s. The heartbeat only
lowers: a member that is not a pack could have sealed it. It goes on at once under the new key; who has not got that
yet hears of the highest state by its polls.
"""

from array import array
from struct import pack_into

from packtrust._compat import const
from packtrust.arbitration import NODE_BROADCAST, NODE_MODULE_MAX, compose
from packtrust.crypto import wipe
from packtrust.errors import ChannelError
from packtrust.group import SECRET_LENGTH, GroupSender
from packtrust.messages.bases import GROUP_KEY, MAX_STATE
from packtrust.messages.table import STATE_OFF
from packtrust_node.slots import BARE, WANTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer
    from packtrust_node.pack import PackNode
    from packtrust_node.slots import Slot

HEARTBEAT_MS = const(200)
# A module that leaves is noticed within a heartbeat; a bus on which all come and go does not drown in keys.
REKEY_MS = const(1000)
# Between two modules that are given the key, so that no poll waits behind all of them.
GIVE_MS = const(25)
# Who has not answered is given it again.
REPEAT_MS = const(1000)

_PORT = const(1)
_LIMP = const(16)

# In `Broadcast._has`.
_NOT = const(0)
_GIVEN = const(1)
_HOLDS = const(2)


class Broadcast:
    """See the module's docstring.

    limp      whether the heartbeat tells modules to be in limp mode
    rekeyed   how often a key was drawn since boot
    refused_clear, refused_records   what the modules have refused meanwhile, by their own word
    """

    def __init__(self, pack: "PackNode") -> None:
        self.limp = False
        self.rekeyed = 0
        self.refused_clear = 0
        self.refused_records = 0
        self._pack = pack
        self._group = None  # type: GroupSender | None
        self._secret = bytearray(4 + SECRET_LENGTH)  # as GROUP_KEY carries it
        self._has = bytearray(NODE_MODULE_MAX + 1)  # by module number
        self._beat_ms = 0
        self._drawn_ms = -REKEY_MS
        self._give_ms = 0
        self._pass_ms = 0
        self._cursor = NODE_MODULE_MAX  # number given the key last, in this pass over all
        self._state = bytearray(1)
        self._request = bytearray(5)
        self._refusals = None  # type: array[int] | None  # clear, records, by module number

    @property
    def secret(self) -> "Buffer":
        """The present key, zeros without one."""
        return memoryview(self._secret)[4:]

    def start(self, now_ms: int) -> None:
        """Begin to beat."""
        self._beat_ms = self._give_ms = self._pass_ms = now_ms

    @property
    def members(self) -> int:
        """How many modules hold the present key, by their own word."""
        count = 0
        for state in self._has:
            if state == _HOLDS:
                count += 1
        return count

    # -- what is sent --------------------------------------------------------------------------------------------------

    def send(self) -> None:
        """Tell all modules at once the highest state any of them may hold, unless none has been given the key."""
        group = self._group
        if group is None or not any(self._has):
            return
        highest = STATE_OFF
        for slot in self._pack.keyed_slots():
            if slot.row[WANTED] > highest:
                highest = slot.row[WANTED]
        self._state[0] = highest | (_LIMP if self.limp else 0)
        env = self._pack.env
        try:
            base = MAX_STATE + self._pack.module_bus.link.shift
            frames = group.seal(compose(base, NODE_BROADCAST), self._state, env.fd(_PORT))
        except ChannelError:
            self._draw(env.now_ms())
            return
        env.send_record(_PORT, frames)

    def max_state(self, slot: "Slot") -> bytearray:
        """The data of MAX_STATE to one module; valid until the next call."""
        self._state[0] = slot.row[WANTED] | (_LIMP if self.limp else 0)
        return self._state

    def request(self, slot: "Slot") -> bytearray:
        """The data of a STATUS_REQUEST: the highest state, and which broadcasts are old; valid until the next call."""
        beat = 0 if self._group is None else self._group.beat
        pack_into("<BI", self._request, 0, slot.row[WANTED] | (_LIMP if self.limp else 0), beat)
        return self._request

    # -- the key -------------------------------------------------------------------------------------------------------

    def join(self, number: int) -> None:
        """A module has a new session: it may have lost the key in a restart, and may have kept it."""
        if self._has[number]:
            self._has[number] = _GIVEN
        self._cursor = 0  # do not wait for the next pass

    def reported(self, number: int, values: "dict[str, int]") -> None:
        """A module says which key it holds, and what it has refused since it started (GROUP_STATUS)."""
        if self._group is not None and values["key_id"] == self._group.key_id and self._has[number]:
            self._has[number] = _HOLDS
        clear = values["clear_refused"]
        records = values["records_refused"]
        seen = self._refusals
        if seen is None:
            if not clear and not records:
                return
            seen = self._refusals = array("H", bytes(4 * (NODE_MODULE_MAX + 1)))
        at = 2 * number
        # A module that says less than before has started anew.
        self.refused_clear += clear - seen[at] if clear >= seen[at] else clear
        self.refused_records += records - seen[at + 1] if records >= seen[at + 1] else records
        seen[at] = clear
        seen[at + 1] = records

    def _draw(self, now_ms: int) -> None:
        """A new key: nobody has it yet, and the one before is gone."""
        self.forget()
        self._drawn_ms = now_ms
        pack = self._pack
        if pack.identity is None:
            return
        secret = bytearray(pack.env.urandom(SECRET_LENGTH))
        self._secret[4:] = secret
        self._group = GroupSender(pack.env.workspace, secret, pack.identity.fingerprint)
        wipe(secret)
        pack.keys_ended()
        self.rekeyed += 1

    def forget(self) -> None:
        """Destroy the key."""
        if self._group is not None:
            self._group.wipe()
            self._group = None
            self._pack.keys_ended()
        wipe(self._secret)
        for number in range(NODE_MODULE_MAX + 1):
            self._has[number] = _NOT
        self._cursor = 0

    def _is_member(self, slot: "Slot", now_ms: int) -> bool:
        return slot.established and not slot.row[BARE] and slot.active(now_ms)

    def _check_members(self, now_ms: int) -> None:
        """Draw a new key if one that has the present one is no member any more."""
        if now_ms - self._drawn_ms < REKEY_MS:
            return
        slots = self._pack.slots
        for number in range(1, NODE_MODULE_MAX + 1):
            if self._has[number]:
                slot = slots.get(number)
                if slot is None or not self._is_member(slot, now_ms):
                    self._pack.env.log("group key: module %d has left" % number)
                    self._draw(now_ms)
                    return

    def _give_next(self, now_ms: int) -> bool:
        """Give the key to the next module that lacks it; False at the end of a pass."""
        for slot in self._pack.keyed_slots():
            number = slot.number
            if number > self._cursor and self._has[number] != _HOLDS and self._is_member(slot, now_ms):
                if self._group is None:
                    self._draw(now_ms)
                group = self._group
                if group is None:
                    return False
                self._cursor = number
                pack_into("<I", self._secret, 0, group.beat)
                if slot.seal(GROUP_KEY, self._secret):
                    self._has[number] = _GIVEN
                return True
        return False

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> int:
        """Do what is due; the ms until the next call is wanted."""
        if now_ms - self._beat_ms >= 0:
            self._beat_ms += HEARTBEAT_MS
            if now_ms - self._beat_ms >= 0:
                self._beat_ms = now_ms + HEARTBEAT_MS
            self._check_members(now_ms)
            self.send()
        if now_ms - self._give_ms >= 0:
            self._give_ms = now_ms + GIVE_MS
            if self._cursor < NODE_MODULE_MAX and not self._give_next(now_ms):
                self._cursor = NODE_MODULE_MAX
                self._pass_ms = now_ms + REPEAT_MS
            elif self._cursor == NODE_MODULE_MAX and now_ms - self._pass_ms >= 0:
                self._cursor = 0
        wait = self._beat_ms - now_ms
        return min(wait, GIVE_MS) if self._cursor < NODE_MODULE_MAX else wait
