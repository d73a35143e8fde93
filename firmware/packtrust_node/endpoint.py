"""The device's side of claim, packages and proofs (docs/wire.md, section 7), the same on pack and module.

Messages come in by `handle`, pair exchanges by `on_pairing`, time by `tick`. The answer to a message is left in
`node.answer`, and what is to be written into the audit log first in `node.notes`; all else that is said goes out by
`node.reply`. Every refusal is answered with REFUSED and counted in the node's counters under its name.

What the node lends (see node.Node): env, identity, relations, own_node, device_role, reply(), count(), neighbour(),
refusal_of(), commit(), forget(), extra(), answer, notes.
"""

from packtrust import provision
from packtrust._compat import const
from packtrust.crypto import sha256, wipe
from packtrust.errors import PacktrustError, StorageError
from packtrust.handshake import INITIATOR
from packtrust.isotp import Pieces
from packtrust.keys import fingerprint
from packtrust.messages.bases import ROTATION_FROM_MODULE
from packtrust_node import identity as identities
from packtrust_node import ondemand
from packtrust_node.staging import OFFER_REPEAT_MS, PAIRED_REPEAT_MS, TIMEOUT_MS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust.channel import Event
    from packtrust_node.neighbour import Neighbour
    from packtrust_node.node import Node
    from packtrust_node.relation import Terms
    from packtrust_node.rotation import Rotation  # noqa: F401 - in a type comment
    from packtrust_node.staging import Staged

STAGED_MAX = const(2)

# After an own rotation that failed, until the next try.
ROTATION_RETRY_MS = const(30000)

# Names of the reasons, provision.REFUSED_* from 1 on, in the node's counters and log.
_NAMES = "unknown not-owner rollback keys state no-route full entropy keyed storage"

# What only a message is answered with that proves to be the owner's, and of this moment.
_ANSWERS_TO_THE_OWNER = bytes((provision.RECEIPT, provision.COMMITTED, provision.ABORTED))

_NO_TAG = bytes(8)
# Where that begins in PACKAGE and CLEAR which the owner's app knows a package by.
_SEALED_AT = const(33)  # behind the mode and the sender's public key
_CLEAR_AT = const(32)


class Refusal(Exception):
    """A message is refused: `Refusal(reason)`, one of provision.REFUSED_*."""


class Endpoint:
    """Claim, key packages and proofs of one node.

    staged   of the endpoint there was before
    """

    def __init__(self, node: "Node", staged: "list[Staged]") -> None:
        self._node = node
        self._staged = staged
        self._owner_key = None  # type: bytearray | None
        self._rotation = None  # type: Rotation | None
        self._rotation_ms = None  # type: int | None  # when the next one may start
        self._turn = 0  # node byte of the pair that had its turn last

    @property
    def staged(self) -> int:
        """How many packages wait for their commit."""
        return len(self._staged)

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost without it."""
        return not self._staged and self._rotation is None

    def give(self) -> "list[Staged] | None":
        """What is staged, for another endpoint in place of this one; None while this one has more to do."""
        return None if self._rotation is not None else self._staged

    # -- dispatch ------------------------------------------------------------------------------------------------------

    def take(self, payload: bytes) -> bool:
        """Take a message addressed to this node, as an ISO-TP payload that `post.target_of` knows. True if the owner
        has sent it, which most questions do not prove.
        """
        ondemand.tidy()
        message = provision.parse(payload)
        return message is not None and self.handle(message)

    def no_route(self, payload: bytes) -> None:
        """Refuse a message to a device that is not here."""
        message = provision.parse(payload)
        if message is not None:
            self.refuse(message, provision.REFUSED_NO_ROUTE)

    def handle(self, message: provision.Message) -> bool:
        """Take a message addressed to this node; its answer goes out when the node has settled. As `take`."""
        try:
            kind, body = self._answer(message)
        except Refusal as refusal:
            self.refuse(message, refusal.args[0])
            return False
        if not kind:
            return False
        message.body = b""
        if isinstance(body, bytes):
            body = provision.frame_message(kind, message.target, message.sequence, body)
        else:
            provision.address(body.pieces[0], kind, message.target, message.sequence)
        self._node.answer = body
        return kind in _ANSWERS_TO_THE_OWNER

    def refuse(self, message: provision.Message, reason: int) -> None:
        """Answer REFUSED and count it."""
        node = self._node
        name = _NAMES.split(" ")[reason - 1]
        node.count(name)
        node.env.log("refused message 0x%02x: %s" % (message.kind, name))
        node.reply(
            provision.frame_message(
                provision.REFUSED,
                message.target,
                message.sequence,
                bytes((message.kind, reason)),
            )
        )

    def _answer(self, message: provision.Message) -> "tuple[int, bytes | Pieces]":
        """(kind, body) of the answer, kind 0 for none; what is not bytes has room for its head. Raises Refusal."""
        if self._node.identity is None:
            raise Refusal(self._node.without_identity)
        kind = message.kind
        if kind in (provision.PACKAGE, provision.CLEAR):
            return provision.RECEIPT, self._on_package(message)
        body = message.body
        if kind == provision.IDENTIFY:
            return provision.IDENTITY, self._identity()
        if kind == provision.PAIR:
            self._on_pair(body)
            return 0, b""
        if kind == provision.COMMIT:
            return provision.COMMITTED, self._on_commit(body)
        if kind == provision.ABORT:
            return provision.ABORTED, self._on_abort(body)
        if kind == provision.PROVE:
            return provision.PROOF, self._on_prove(body)
        if kind == provision.STATUS:
            return provision.REPORT, self._on_status(body)
        if kind in (provision.AUDIT, provision.CLEAR_SIGNS):
            before = ondemand.mark()
            try:
                from packtrust_node import audit_log

                kind, body = audit_log.answer(self._node, kind, body)
            finally:
                ondemand.back_to(before)
            if kind == provision.REFUSED:
                raise Refusal(body[0])
            return kind, body
        return self._node.extra(kind, body)

    def _identity(self) -> bytes:
        node = self._node
        identity = node.identity
        flags = provision.FLAG_CLAIMED if identity.claimed else 0
        if node.relations:
            flags |= provision.FLAG_KEYED
        return provision.Identity(
            node.device_role,
            flags,
            node.unique_id,
            identity.public,
            identity.owner_fingerprint,
            identity.counter,
            node.boot_counter,
            node.serial,
            node.profile,
        ).encode()

    # -- packages ------------------------------------------------------------------------------------------------------

    def _on_package(self, message: provision.Message) -> bytes:
        """Also CLEAR, the roadmap's clear first transfer."""
        node = self._node
        identity = node.identity
        in_clear = message.kind == provision.CLEAR
        package_hash = sha256(memoryview(message.body)[_CLEAR_AT if in_clear else _SEALED_AT :])
        for staged in self._staged:
            if staged.package_hash == package_hash:
                return self._receipt(staged)  # the RECEIPT was lost and the app asks again
        staged, owner, counter, receipt_key = self._stage(message, in_clear)
        message.body = b""  # what is written now needs the room
        if staged is None:
            return self._release(counter, package_hash, receipt_key)
        try:
            if not identity.claimed:
                self._begin_log(receipt_key, owner, counter, in_clear)
            self._write_identity(identity.owned_by(owner, counter, in_clear))
        except Refusal:
            self.drop(staged)
            raise
        if not identity.claimed:
            self.rest()
            node.env.log("claimed: owner pinned, claim code burnt")
        draft = staged.draft
        node.notes.append(("package", draft.node, draft.epoch, counter, package_hash))
        node.env.log("package %d taken: %s" % (counter, draft.lct_id))
        if in_clear:
            node.count("clear-transfer")
            node.env.log("audit: key material was taken in clear, by the board's option")
        return self._receipt(staged)

    def _stage(self, message: provision.Message, in_clear: bool) -> "tuple[Staged | None, bytes, int, bytearray]":
        """As taking.take. Of the code for it nothing is left, nor of the package as it was sealed."""
        node = self._node
        opened = None if in_clear else node.opened
        node.opened = None
        if opened is None and not in_clear:
            opened = node.open_package(message.body)
        from packtrust import package
        from packtrust_node import staging  # noqa: F401 - what is staged is of its classes, which stay

        before = ondemand.mark()
        try:
            from packtrust_node.taking import take

            return take(self, node, opened, message.body)
        finally:
            ondemand.back_to(before)
            ondemand.drop(package)

    def _begin_log(self, receipt_key: bytearray, owner: bytes, counter: int, in_clear: bool) -> None:
        """The audit log of the owner to be: stored before the pin, so that no claim is without its log."""
        before = ondemand.mark()
        try:
            from packtrust_node import audit_log

            audit_log.claim(self._node, receipt_key, fingerprint(owner), counter, in_clear)
        except StorageError as error:
            self._storage_failed(error)
        finally:
            ondemand.back_to(before)

    def add(self, staged: "Staged") -> None:
        """What is staged takes the place of what was about the same pair."""
        for other in list(self._staged):
            if other.tag == staged.tag or other.neighbour is staged.neighbour:
                self.drop(other)  # the app has begun anew
        if self._rotation is not None and self._rotation.neighbour is staged.neighbour:
            self._end_rotation()  # the owner's word goes first
        if len(self._staged) >= STAGED_MAX:
            staged.wipe()
            raise Refusal(provision.REFUSED_FULL)
        self._staged.append(staged)
        staged.neighbour.listen(True)

    def known(self, tag: bytes) -> "Terms | None":
        """The relationship with this `lct_tag`, if there is one."""
        for relation in self._node.relations.values():
            if relation.tag == tag:
                return relation
        return None

    def _write_identity(self, identity: identities.Identity) -> None:
        try:
            self._node.write_identity(identity)
        except StorageError as error:
            self._storage_failed(error)

    def _storage_failed(self, error: StorageError) -> None:
        self._node.count("storage")
        self._node.env.log("storage: %s" % error)
        raise Refusal(provision.REFUSED_STATE)

    def _receipt(self, staged: "Staged") -> bytes:
        body = provision.receipt_body(staged.tag, staged.epoch, staged.draft.counter, staged.package_hash)
        return provision.with_mac(staged.receipt_key, provision.RECEIPT, body)

    def _release(self, counter: int, package_hash: bytes, receipt_key: bytearray) -> bytes:
        body = provision.with_mac(
            receipt_key,
            provision.RECEIPT,
            provision.receipt_body(_NO_TAG, 0, counter, package_hash),
        )
        wipe(receipt_key)
        try:
            self._node.forget(counter)
        except StorageError as error:
            self._storage_failed(error)
        return body

    def clear(self) -> None:
        """Forget everything about the present owner."""
        for staged in list(self._staged):
            self.drop(staged)
        self.rest()
        self._end_rotation()

    def rest(self) -> None:
        """Forget what can be computed again: call it before the endpoint goes."""
        if self._owner_key is not None:
            wipe(self._owner_key)
            self._owner_key = None

    def drop(self, staged: "Staged", keep_receipt_key: bool = False) -> None:
        """Forget what is staged."""
        if staged in self._staged:
            self._staged.remove(staged)
        staged.wipe(not keep_receipt_key)
        self._node.keys_ended()
        for other in self._staged:
            if other.neighbour is staged.neighbour:
                return
        staged.neighbour.listen(False)

    # -- pair exchange -------------------------------------------------------------------------------------------------

    def _find(self, body: bytes) -> "Staged | None":
        parsed = provision.parse_epoch_body(body)
        if parsed is None:
            raise Refusal(provision.REFUSED_UNKNOWN)
        for staged in self._staged:
            if staged.tag == parsed[0] and staged.epoch == parsed[1]:
                return staged
        return None

    def _on_pair(self, body: bytes) -> None:
        """Not authenticated, and need not be: it starts what the owner's package has prepared."""
        staged = self._find(body)
        if len(body) != 12 or staged is None or staged.draft.role != INITIATOR:
            raise Refusal(provision.REFUSED_STATE)
        if staged.offer_ms is None and not staged.exchange.agreed:
            self._offer(staged)

    def _offer(self, staged: "Staged") -> None:
        staged.offer_ms = self._node.env.now_ms() + OFFER_REPEAT_MS
        staged.neighbour.send_pairing(staged.exchange.offer())

    def on_pairing(self, neighbour: "Neighbour", payload: bytes) -> None:
        """Take a message of a pair exchange that came from `neighbour`."""
        if not self._staged:
            self._node.count("pairing")
            return
        from packtrust.pairing import tag_of

        tag = tag_of(payload)
        for staged in self._staged:
            if staged.tag == tag and staged.neighbour is neighbour:
                answer = staged.exchange.feed(payload)
                if answer is not None:
                    neighbour.send_pairing(answer)
                if staged.exchange.agreed and staged.paired_ms is None:
                    staged.offer_ms = None
                    self._send_paired(staged)
                elif answer is None and not staged.exchange.agreed:
                    self._node.count("pairing")
                return
        self._node.count("pairing")

    def _send_paired(self, staged: "Staged") -> None:
        node = self._node
        staged.paired_ms = node.env.now_ms() + PAIRED_REPEAT_MS
        body = provision.epoch_body(staged.tag, staged.epoch, staged.draft.peer_fingerprint)
        body = provision.with_mac(staged.receipt_key, provision.PAIRED, body)
        node.reply(provision.frame_message(provision.PAIRED, node.own_node, 0, body))

    # -- commit and abort ----------------------------------------------------------------------------------------------

    def _finish_again(self, kind: int, answer: int, body: bytes) -> bytes:
        """The answer to a repeated COMMIT or ABORT. Raises Refusal if there was none like it."""
        parsed = provision.parse_epoch_body(body)
        for tag, epoch, receipt_key, what, _ in self._node.finished:
            if what == kind and parsed == (tag, epoch):
                if provision.check_mac(receipt_key, kind, body) is None:
                    raise Refusal(provision.REFUSED_NOT_OWNER)
                return provision.with_mac(receipt_key, answer, provision.epoch_body(tag, epoch))
        raise Refusal(provision.REFUSED_STATE)

    def _finish(self, staged: "Staged", kind: int, answer: int) -> bytes:
        finished = self._node.finished
        if len(finished) >= STAGED_MAX:
            wipe(finished.pop(0)[2])
        finished.append((staged.tag, staged.epoch, staged.receipt_key, kind, self._node.env.now_ms()))
        self.drop(staged, True)
        done = provision.epoch_body(staged.tag, staged.epoch)
        return provision.with_mac(staged.receipt_key, answer, done)

    def _on_commit(self, body: bytes) -> bytes:
        node = self._node
        staged = self._find(body)
        if staged is None:
            return self._finish_again(provision.COMMIT, provision.COMMITTED, body)
        if provision.check_mac(staged.receipt_key, provision.COMMIT, body) is None:
            raise Refusal(provision.REFUSED_NOT_OWNER)
        if not staged.exchange.agreed or staged.exchange.root is None:
            raise Refusal(provision.REFUSED_STATE)
        if node.neighbour(staged.draft.node) is not staged.neighbour:
            raise Refusal(provision.REFUSED_STATE)  # registered anew under another number
        relation = staged.relation(node.unique_id_of(staged.draft.node))
        known = self.known(relation.tag)
        if known is not None:
            if known.epoch >= relation.epoch:
                raise Refusal(provision.REFUSED_STATE)
            relation.keep_epoch_in_use(known, staged.neighbour.session_epoch)
        try:
            node.commit(relation, "committed")
        except StorageError as error:
            self._storage_failed(error)
        return self._finish(staged, provision.COMMIT, provision.COMMITTED)

    def _on_abort(self, body: bytes) -> bytes:
        staged = self._find(body)
        if staged is None:
            return self._finish_again(provision.ABORT, provision.ABORTED, body)
        if provision.check_mac(staged.receipt_key, provision.ABORT, body) is None:
            raise Refusal(provision.REFUSED_NOT_OWNER)
        self._node.notes.append(("aborted", staged.draft.node, staged.epoch, staged.draft.counter, b""))
        self._node.env.log("package for %s aborted by the owner" % staged.draft.lct_id)
        return self._finish(staged, provision.ABORT, provision.ABORTED)

    # -- proofs --------------------------------------------------------------------------------------------------------

    def owner_key(self) -> bytearray:
        """The key shared with the owner. Raises Refusal without an owner."""
        identity = self._node.identity
        if not identity.claimed:
            raise Refusal(provision.REFUSED_STATE)
        if self._owner_key is None:
            try:
                self._owner_key = bytearray(
                    provision.owner_key(
                        identity.private,
                        identity.owner_public,
                        identity.fingerprint,
                        identity.owner_fingerprint,
                    )
                )
            except PacktrustError:
                raise Refusal(provision.REFUSED_KEYS)
        return self._owner_key

    def _on_prove(self, nonce: bytes) -> Pieces:
        if len(nonce) != provision.NONCE_LENGTH:
            raise Refusal(provision.REFUSED_UNKNOWN)
        node = self._node
        relations = node.relations
        entries = ((relation.tag, relation.epoch, relation.peer_fingerprint) for relation in relations.values())
        return Pieces(provision.proof(node.identity.fingerprint, nonce, len(relations), entries, self.owner_key()))

    def _on_status(self, body: bytes) -> bytes:
        before = ondemand.mark()
        try:
            from packtrust_node.status import answer

            return answer(self._node, self.owner_key(), body)
        finally:
            ondemand.back_to(before)

    # -- rotation without an app ---------------------------------------------------------------------------------------

    def on_rotation(self, neighbour: "Neighbour", base: int, event: "Event") -> None:
        """Take a record about a rotation: at the pack from a module, at a module from the pack."""
        if base == ROTATION_FROM_MODULE:
            meant = neighbour.role == INITIATOR
        else:
            meant = self._node.device_role == provision.ROLE_MODULE
        if not meant:
            self._node.count("rotation")
            return
        from packtrust_node.rotation import take

        ours = self._rotation
        try:
            self._rotation = take(self._node, ours, neighbour, bytes(event.data), event.epoch)
        except PacktrustError as error:
            self._rotation_failed(error)

    def _rotation_failed(self, error: PacktrustError) -> None:
        self._node.count("rotation-failed")
        self._node.env.log("no new epoch: %s" % error)
        self._end_rotation()

    def _end_rotation(self) -> None:
        if self._rotation is not None:
            self._rotation.wipe()
            self._rotation = None

    def is_staged(self, neighbour: "Neighbour") -> bool:
        """Whether a package of the owner is about this neighbour: then there is nothing to rotate."""
        for staged in self._staged:
            if staged.neighbour is neighbour:
                return True
        return False

    def _due(self, now_ms: int) -> "Terms | None":
        """The next pair of a pack and a module whose epoch the pack must replace itself: one that fails, by its
        module's will or not, does not keep the others from their turn.
        """
        node = self._node
        limit = node.usage.limit(now_ms)
        found = None
        fewest = 0x100
        for relation in node.relations.values():
            if relation.node == node.own_node or relation.two_epochs or not node.usage.used(relation, limit):
                continue
            neighbour = node.neighbour(relation.node)
            if neighbour is None or self.is_staged(neighbour):
                continue
            if neighbour.session_epoch != relation.epoch:
                continue
            turns = (relation.node - self._turn - 1) & 0xFF
            if turns < fewest:
                fewest = turns
                found = relation
        return found

    def _tick_rotation(self, now_ms: int, counted: bool) -> None:
        node = self._node
        if self._rotation is not None:
            try:
                if not self._rotation.tick(now_ms):
                    if self._rotation.committed:
                        self._rotation_ms = None
                    self._end_rotation()
            except PacktrustError as error:
                self._rotation_failed(error)
            return
        if not counted or node.device_role != provision.ROLE_PACK:
            return
        if self._rotation_ms is not None and now_ms - self._rotation_ms < 0:
            return
        relation = self._due(now_ms)
        if relation is not None:
            from packtrust_node.rotation import begin

            self._rotation_ms = now_ms + ROTATION_RETRY_MS
            self._turn = relation.node
            try:
                self._rotation = begin(node, relation)
            except PacktrustError as error:
                self._rotation_failed(error)

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int, counted: bool = False) -> None:
        """Call every 10..100 ms: repeats what has not been answered, gives up what took too long.

        counted   whether the usage of the epochs has just been counted
        """
        for staged in list(self._staged):
            if now_ms - staged.since_ms >= TIMEOUT_MS:
                self._node.count("stage-timeout")
                self._node.env.log("package for %s given up: no commit" % staged.draft.lct_id)
                self.drop(staged)
            elif staged.offer_ms is not None and now_ms - staged.offer_ms >= 0:
                self._offer(staged)
            elif staged.paired_ms is not None and now_ms - staged.paired_ms >= 0:
                self._send_paired(staged)
        self._tick_rotation(now_ms, counted)
