"""What the embedded bridge does, without HTTP: components, relationships, halves, trust, energy.

Each public method is one route and returns the reply's fields. Refusals are ServiceError.

Key halves live in memory only, and only half A of a relationship, from `create_lct` until its
pairing is complete or HOLD_SECONDS have passed; the database has their SHA-256.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from packtrust_host.bridge.halves import attest_key, pairing_auth, reference, wipe
from packtrust_host.bridge.store import (
    Account,
    Challenge,
    Component,
    EnergyEntry,
    EnergyOperation,
    HalfReference,
    Lct,
    Store,
    Tensor,
    Transaction,
)

HalfLength = Literal["bytes64", "hex64"]
Reply = dict[str, Any]

CHALLENGE_SECONDS = 300
HOLD_SECONDS = 300
MICRO = 1_000_000  # amounts are kept in millionths
OPENING_ADP = 1000 * MICRO  # what a new component's account starts with, uncharged
MAX_AMOUNT = 1_000_000_000
DEFAULT_SCORE = Decimal("0.5")
T3 = ("talent", "training", "temperament")
V3 = ("valuation", "veracity", "validity")
# The chain's code and the Web4 specification weigh the dimensions differently: (T3, V3).
WEIGHTS = {
    "act": (("0.3", "0.4", "0.3"), ("0.4", "0.3", "0.3")),
    "web4": (("0.4", "0.3", "0.3"), ("0.3", "0.35", "0.35")),
}
LCT_STATUSES = ("pending", "active", "terminated")
ATTEST_METHOD = "hmac-sha256 statement"

# `COMP-` + creator + `-` + ten digits must fit the chain's 50 characters.
_CREATOR = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,33}")


class ServiceError(Exception):
    """A refused request: unknown, expired, not allowed. The text says which, and what to do."""


@dataclass
class _Held:
    text: bytearray  # half A as its hex digits
    until: float


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_text(micro: int) -> str:
    """Micro-ATP as decimal string with at least three decimals, as the chain prints it."""
    whole, part = divmod(micro, MICRO)
    digits = "%06d" % part
    return "%d.%s" % (whole, digits[:3] + digits[3:].rstrip("0"))


def _micro(amount: Decimal) -> int:
    if not 0 < amount <= MAX_AMOUNT:
        raise ServiceError("amount must be above 0 and at most %d" % MAX_AMOUNT)
    scaled = amount * MICRO
    if scaled != scaled.to_integral_value():
        raise ServiceError("amount has more than 6 decimals")
    return int(scaled)


def _number(micro: int) -> float:
    return float(Decimal(micro) / MICRO)


def _decimal_text(value: Decimal) -> str:
    return format(value, "f")


def _free_second(session: Session, row: type, make: Callable[[int], str], now: int) -> str:
    """The id of the first second from `now` on that is free: ids resolve whole seconds."""
    while session.get(row, make(now)) is not None:
        now += 1
    return make(now)


def _component(session: Session, component_id: str) -> Component:
    row = session.get(Component, component_id)
    if row is None:
        raise ServiceError("component %s is not registered" % component_id[:60])
    return row


def _account(session: Session, component_id: str) -> Account:
    return session.get_one(Account, component_id, with_for_update=True)


def _lct(session: Session, lct_id: str) -> Lct:
    row = session.get(Lct, lct_id)
    if row is None:
        raise ServiceError("LCT %s not found" % lct_id[:160])
    return row


def _check_pair(session: Session, a: str, b: str) -> None:
    if a == b:
        raise ServiceError("component_a and component_b are the same component")
    _component(session, a)
    _component(session, b)


class BridgeService:
    """The rules over one store. `clock` gives unix seconds. Thread-safe."""

    def __init__(self, store: Store, half_length: HalfLength, clock: Callable[[], float]) -> None:
        if half_length not in ("bytes64", "hex64"):
            raise ValueError("half_length is 'bytes64' or 'hex64'")
        self._store = store
        self._half_length = half_length
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._held_lock = threading.Lock()

    # -- halves

    def _new_half(self, session: Session, lct_id: str, part: str) -> tuple[str, bytearray]:
        """A fresh half as hex text and as its 64 bytes, its reference recorded."""
        if self._half_length == "bytes64":
            wire = bytearray(secrets.token_bytes(64))
            text = wire.hex()
        else:
            text = secrets.token_hex(32)
            wire = bytearray(text.encode())
        session.add(HalfReference(sha256=reference(wire), lct_id=lct_id, part=part))
        return text, wire

    def forget_expired(self) -> None:
        """Wipe the halves that were held for their full time."""
        now = self._clock()
        with self._held_lock:
            for lct_id in [key for key, held in self._held.items() if held.until <= now]:
                wipe(self._held.pop(lct_id).text)

    def forget_all(self) -> None:
        """Wipe every half held: the bridge stops."""
        with self._held_lock:
            for held in self._held.values():
                wipe(held.text)
            self._held.clear()

    @property
    def halves_held(self) -> int:
        """How many relationships wait for their pairing."""
        return len(self._held)

    def _forget(self, lct_id: str) -> None:
        with self._held_lock:
            held = self._held.pop(lct_id, None)
        if held is not None:
            wipe(held.text)

    # -- journal

    def _record(self, session: Session, kind: str, fields: Reply) -> str:
        """Chain one transaction to those before it; returns its hash (64 upper-case hex digits)."""
        last = session.scalar(select(Transaction).order_by(Transaction.sequence.desc()).limit(1))
        before = "" if last is None else last.txhash
        body = json.dumps(fields, sort_keys=True, default=str)
        text = "%s\n%s\n%s" % (before, kind, body)
        txhash = hashlib.sha256(text.encode()).hexdigest().upper()
        session.add(Transaction(txhash=txhash, kind=kind, created_at=self._now()))
        return txhash

    def _now(self) -> int:
        return int(self._clock())

    # -- public routes

    def health(self) -> Reply:
        """GET /health."""
        return {"status": "healthy", "service": "api-bridge", "timestamp": self._now()}

    def status(self) -> Reply:
        """GET /blockchain/status. The `mode` tells clients that no chain stands behind this."""
        return {
            "blockchain_status": {
                "connected": True,
                "errors": [],
                "ignite_available": False,
                "ignite_path": "",
                "mode": "embedded",
                "project_root": "",
                "racecar_cmd": "",
                "rest_api_connected": True,
            },
            "service": "api-bridge",
            "timestamp": self._now(),
        }

    # -- components

    def register(self, creator: str, component_data: str, context: str) -> Reply:
        """POST components/register: a component and its account with OPENING_ADP."""
        if not _CREATOR.fullmatch(creator):
            raise ServiceError(
                "creator must be 1 to 34 of A-Z a-z 0-9 _ - and not start with -: it becomes part of the component id"
            )
        manufacturer = "unknown"
        try:
            data = json.loads(component_data)
        except (ValueError, RecursionError):
            data = None  # free text is allowed
        if isinstance(data, dict):
            manufacturer = str(data.get("manufacturer_id") or data.get("mfg_id") or manufacturer)

        def work(session: Session) -> Reply:
            now = self._now()
            name = "COMP-" + creator + "-%d"
            component_id = _free_second(session, Component, lambda second: name % second, now)
            session.add(
                Component(
                    component_id=component_id,
                    creator=creator,
                    component_data=component_data,
                    context=context,
                    manufacturer_id=manufacturer.replace("\x00", ""),
                    registered_at=now,
                )
            )
            session.flush()
            account = Account(component_id=component_id, atp=0, adp=0, updated_at=now)
            session.add(account)
            self._book(session, account, 0, OPENING_ADP, "opening", None)
            reply: Reply = {
                "component_id": component_id,
                "component_identity": component_id,
                "lct_id": "lct_" + component_id,
                "status": "registered",
                "creator": creator,
                "component_data": component_data,
                "context": context,
            }
            return {**reply, "txhash": self._record(session, "register_component", reply)}

        return self._store.transact(work)

    def component(self, component_id: str) -> Reply:
        """GET components/{id}: the chain's names and defaults."""

        def work(session: Session) -> Reply:
            row = _component(session, component_id)
            registered = _rfc3339(row.registered_at)
            involved = select(Lct.lct_id).where(or_(Lct.component_a == component_id, Lct.component_b == component_id))
            rules = {
                "allowed_pairing_types": ["direct", "proxy"],
                "max_connections": 2,
                "trust_threshold": 0.75,
            }
            return {
                "component_id": component_id,
                "manufacturer_hash": "",
                "category_hash": "",
                "authorization_rules_hash": "",
                "status": "active",
                "registered_at": registered,
                "trust_anchor": row.creator,
                "last_verified_at": _rfc3339(row.verified_at) if row.verified_at else "",
                "verification_metadata": row.verification_method,
                "relationship_hashes": [],
                "lct_hash": "",
                "encrypted_device_key_half": "",
                "manufacturer_id": row.manufacturer_id,
                "component_type": "module",
                "hardware_specs": row.component_data,
                "quality_score": "0.8",
                "capabilities": "{}",
                "relationship_ids": sorted(session.scalars(involved)),
                "lct_id": "lct_" + component_id,
                "authorization_rules": json.dumps(rules, sort_keys=True),
                "created_at": registered,
            }

        return self._store.transact(work)

    def identity(self, component_id: str) -> Reply:
        """GET components/{id}/identity: whether a statement was ever verified, and when last."""

        def work(session: Session) -> Reply:
            row = _component(session, component_id)
            return {
                "component_id": component_id,
                "identity": component_id,
                "verified": bool(row.verified_at),
                "verification": {
                    "component_id": component_id,
                    "status": "verified" if row.verified_at else "unverified",
                    "verified_at": _rfc3339(row.verified_at) if row.verified_at else "",
                    "verification_method": row.verification_method,
                    "verification_evidence": row.verification_evidence,
                    "notes": row.verification_notes,
                },
            }

        return self._store.transact(work)

    def verify(self, component_id: str, verifier: str, context: str) -> Reply:
        """POST components/{id}/verify.

        `context` is JSON {"statement": base64, "mac": hex, "lct_id": text}. `verified` is true only
        if mac = HMAC-SHA256(attest key of that LCT, statement) and the component is party to the
        LCT, which has not ended. Whether the statement is fresh is for its reader (it carries a
        nonce). Today's bridge answers true to anything.
        """

        def work(session: Session) -> tuple[str, str]:
            row = _component(session, component_id)
            try:
                claim = json.loads(context)
                statement = base64.b64decode(claim["statement"], validate=True)
                mac = bytes.fromhex(claim["mac"])
                lct_id = claim["lct_id"]
            except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
                return "", "context is not JSON with statement (base64), mac (hex) and lct_id"
            lct = session.get(Lct, lct_id) if isinstance(lct_id, str) else None
            if lct is None or component_id not in (lct.component_a, lct.component_b):
                return "", "the component is not party to that LCT"
            if lct.pairing_status == "terminated" or lct.attest_key is None:
                return "", "the LCT has ended or has no LCT half"
            if not hmac.compare_digest(hmac.digest(lct.attest_key, statement, "sha256"), mac):
                return "", "the MAC does not match"
            row.verified_at = lct.last_contact_at = self._now()
            row.verification_method = ATTEST_METHOD
            row.verification_evidence = hashlib.sha256(statement).hexdigest()
            row.verification_notes = "verifier %s, %s" % (verifier, lct_id)
            return self._record(session, "verify_component", {"evidence": claim}), ""

        txhash, reason = self._store.transact(work)
        return {
            "component_id": component_id,
            "verifier": verifier,
            "verified": not reason,
            "component_data": "" if reason else "verified_data",
            "timestamp": self._now(),
            "verification_method": ATTEST_METHOD,
            "reason": reason,
            **({"txhash": txhash} if txhash else {}),
        }

    # -- relationships

    def create_lct(self, creator: str, component_a: str, component_b: str, context: str, proxy_id: str) -> Reply:
        """POST lct/create: a relationship, half A (`device_key_half`) and its LCT half, once."""
        self.forget_expired()

        def work(session: Session) -> tuple[Reply, bytearray]:
            _check_pair(session, component_a, component_b)
            now = self._now()
            name = "lct-" + component_a + "-" + component_b + "-%d"
            lct_id = _free_second(session, Lct, lambda second: name % second, now)
            row = Lct(
                lct_id=lct_id,
                component_a=component_a,
                component_b=component_b,
                creator=creator,
                context=context,
                proxy_id=proxy_id,
                pairing_status="pending",
                created_at=now,
                updated_at=now,
                last_contact_at=now,
            )
            session.add(row)
            session.flush()
            device_text, device = self._new_half(session, lct_id, "device_a")
            lct_text, lct = self._new_half(session, lct_id, "lct")
            row.attest_key = attest_key(lct)
            wipe(device)
            wipe(lct)
            reply: Reply = {
                "lct_id": lct_id,
                "component_a": component_a,
                "component_b": component_b,
                "context": context,
                "proxy_id": proxy_id,
                "status": "active",
                "created_at": now,
                "creator": creator,
            }
            reply["txhash"] = self._record(session, "create_lct", reply)
            reply["device_key_half"] = device_text
            reply["lct_key_half"] = lct_text
            return reply, bytearray(device_text.encode())

        reply, text = self._store.transact(work)
        with self._held_lock:
            self._held[reply["lct_id"]] = _Held(text, self._clock() + HOLD_SECONDS)
        return reply

    def lct(self, lct_id: str) -> Reply:
        """GET lct/{id}: the chain's names; empty fields are left out; never a half."""

        def work(session: Session) -> Reply:
            row = _lct(session, lct_id)
            reply: Reply = {
                "lct_id": row.lct_id,
                "component_a_id": row.component_a,
                "component_b_id": row.component_b,
                "pairing_status": row.pairing_status,
                "created_at": row.created_at,
                "updated_at": row.updated_at,
                "last_contact_at": row.last_contact_at,
                "trust_anchor": row.creator,
                "operational_context": row.context,
                "proxy_component_id": row.proxy_id,
                "authorization_rules": "{}",
            }
            return {key: value for key, value in reply.items() if value != ""}

        return self._store.transact(work)

    def _end_or_set(self, lct_id: str, creator: str, status: str, kind: str) -> int:
        def work(session: Session) -> int:
            row = _lct(session, lct_id)
            if creator != row.creator:
                raise ServiceError("only its creator may change an LCT")
            if row.pairing_status == "terminated" and status != "terminated":
                raise ServiceError("the LCT is terminated: create a new one")
            row.pairing_status = status
            row.updated_at = self._now()
            if status == "terminated":
                row.attest_key = None
            self._record(session, kind, {"lct_id": lct_id, "status": status})
            return row.updated_at

        updated = self._store.transact(work)
        if status == "terminated":
            self._forget(lct_id)
        return updated

    def set_lct_status(self, lct_id: str, creator: str, status: str) -> Reply:
        """PUT lct/{id}/status: pending, active or terminated; the last is final."""
        if status not in LCT_STATUSES:
            raise ServiceError("status must be one of %s" % ", ".join(LCT_STATUSES))
        updated = self._end_or_set(lct_id, creator, status, "update_lct_status")
        return {"lct_id": lct_id, "status": status, "updated_at": updated}

    def revoke(self, creator: str, lct_id: str, reason: str) -> Reply:
        """DELETE pairing/revoke: terminates the relationship."""
        self._end_or_set(lct_id, creator, "terminated", "revoke_pairing")
        return {"lct_id": lct_id, "status": "revoked", "reason": reason}

    # -- pairing

    def initiate_pairing(
        self,
        creator: str,
        component_a: str,
        component_b: str,
        operational_context: str,
        proxy_id: str,
        force_immediate: bool,
    ) -> Reply:
        """POST pairing/initiate: a challenge that lives CHALLENGE_SECONDS."""

        def work(session: Session) -> Reply:
            _check_pair(session, component_a, component_b)
            now = self._now()
            name = "CHALLENGE-" + component_a + "-" + component_b + "-%d"
            challenge_id = _free_second(session, Challenge, lambda second: name % second, now)
            session.add(
                Challenge(
                    challenge_id=challenge_id,
                    component_a=component_a,
                    component_b=component_b,
                    creator=creator,
                    operational_context=operational_context,
                    proxy_id=proxy_id,
                    created_at=now,
                )
            )
            reply: Reply = {
                "challenge_id": challenge_id,
                "component_a": component_a,
                "component_b": component_b,
                "operational_context": operational_context,
                "proxy_id": proxy_id,
                "force_immediate": force_immediate,
                "status": "pending",
                "created_at": now,
                "creator": creator,
            }
            return {**reply, "txhash": self._record(session, "initiate_pairing", reply)}

        return self._store.transact(work)

    def complete_pairing(self, challenge_id: str, component_a_auth: str, component_b_auth: str) -> Reply:
        """POST pairing/complete: half A again, half B for the first and only time.

        For the newest LCT of the two components that waits for its pairing. Where there is none at
        all, as with a client that never calls lct/create, the pairing makes one, without an LCT
        half.
        """
        self.forget_expired()

        def work(session: Session) -> Reply:
            challenge = session.get(Challenge, challenge_id, with_for_update=True)
            if challenge is None:
                raise ServiceError("pairing challenge not found")
            if challenge.completed:
                raise ServiceError(
                    "the challenge was completed before and halves are given out once: create a new LCT and pair it"
                )
            if self._clock() - challenge.created_at > CHALLENGE_SECONDS:
                raise ServiceError("the challenge has expired: initiate a new one")
            for side, auth, component in (
                ("a", component_a_auth, challenge.component_a),
                ("b", component_b_auth, challenge.component_b),
            ):
                # Compared as bytes: compare_digest takes no text outside ASCII.
                right = pairing_auth(challenge_id, component).encode()
                if not hmac.compare_digest(auth.encode(), right):
                    raise ServiceError(
                        "component_%s_auth is not the SHA-256 of challenge id and component_%s" % (side, side)
                    )
            lct, half_a = self._lct_to_pair(session, challenge)
            half_b, wire = self._new_half(session, lct.lct_id, "device_b")
            wipe(wire)
            lct.pairing_status = "active"
            lct.updated_at = lct.last_contact_at = self._now()
            challenge.completed = True
            trust = self._trust(session, challenge.component_a, challenge.component_b)
            reply: Reply = {
                "lct_id": lct.lct_id,
                "session_keys": "session_keys_generated",
                "trust_summary": "trust_score:%s,context:pairing_completed" % trust,
            }
            reply["txhash"] = self._record(session, "complete_pairing", reply)
            return {**reply, "split_key_a": half_a, "split_key_b": half_b}

        reply = self._store.transact(work)
        self._forget(reply["lct_id"])
        return reply

    def _lct_to_pair(self, session: Session, challenge: Challenge) -> tuple[Lct, str]:
        """The relationship a challenge completes, and the text of its half A."""
        a, b = challenge.component_a, challenge.component_b
        rows = list(
            session.scalars(
                select(Lct)
                .where(Lct.component_a == a, Lct.component_b == b)
                .where(Lct.pairing_status != "terminated")
                .order_by(Lct.created_at.desc(), Lct.lct_id.desc())
            )
        )
        if not rows:
            now = self._now()
            row = Lct(
                lct_id="lct_" + challenge.challenge_id,
                component_a=a,
                component_b=b,
                creator=challenge.creator,
                context=challenge.operational_context,
                proxy_id=challenge.proxy_id,
                pairing_status="pending",
                created_at=now,
                updated_at=now,
                last_contact_at=now,
            )
            session.add(row)
            session.flush()
            text, wire = self._new_half(session, row.lct_id, "device_a")
            wipe(wire)
            return row, text
        waiting = [row for row in rows if row.pairing_status == "pending"]
        if not waiting:
            raise ServiceError("LCT %s is paired already: to rotate, create a new LCT and pair it" % rows[0].lct_id)
        with self._held_lock:
            held = self._held.get(waiting[0].lct_id)
            if held is not None:
                return waiting[0], held.text.decode()
        raise ServiceError(
            "the device half of LCT %s is no longer held (the bridge was restarted, or more than "
            "%d s passed since lct/create): create a new LCT and pair it" % (waiting[0].lct_id, HOLD_SECONDS)
        )

    def pairing_status(self, challenge_id: str) -> Reply:
        """GET pairing/status/{challenge_id}: pending, completed or expired."""

        def work(session: Session) -> Reply:
            row = session.get(Challenge, challenge_id)
            if row is None:
                raise ServiceError("pairing challenge not found")
            expired = self._clock() - row.created_at > CHALLENGE_SECONDS
            status = "completed" if row.completed else "expired" if expired else "pending"
            return {"challenge_id": challenge_id, "status": status, "created_at": row.created_at}

        return self._store.transact(work)

    # -- trust

    @staticmethod
    def _weighted(row: Tensor, part: int) -> Decimal:
        names = (T3, V3)[part]
        weights = WEIGHTS[row.weight_profile][part]
        total = sum((Decimal(w) * getattr(row, n) for n, w in zip(names, weights, strict=True)), Decimal(0))
        return min(max(total, Decimal(0)), Decimal(1))

    def _tensor_reply(self, row: Tensor) -> Reply:
        extra = {name: _decimal_text(getattr(row, name)) for name in T3 + V3}
        return {
            "tensor_id": row.tensor_id,
            "component_a": row.component_a,
            "component_b": row.component_b,
            "score": float(row.score),
            "status": "active",
            **extra,
            "t3_composite": _decimal_text(self._weighted(row, 0)),
            "v3_composite": _decimal_text(self._weighted(row, 1)),
            "weight_profile": row.weight_profile,
            "version": row.version,
            "updated_at": row.updated_at,
        }

    @staticmethod
    def _trust(session: Session, a: str, b: str) -> Decimal:
        row = session.get(Tensor, "tensor_%s_%s" % (a, b))
        return DEFAULT_SCORE if row is None else row.score

    def create_tensor(
        self,
        creator: str,
        component_a: str,
        component_b: str,
        context: str,
        initial_score: Decimal,
        weight_profile: str,
        dimensions: dict[str, Decimal | None],
    ) -> Reply:
        """POST trust/tensor.

        Dimensions that are not given start at `initial_score` (T3) or 0.5 (V3). Without an
        `initial_score` the scalar starts at the T3 composite.
        """
        profile = _profile(weight_profile) or "act"
        initial_score = _checked_score("initial_score", initial_score)

        def work(session: Session) -> Reply:
            _check_pair(session, component_a, component_b)
            tensor_id = "tensor_%s_%s" % (component_a, component_b)
            if session.get(Tensor, tensor_id) is not None:
                raise ServiceError("%s exists already: read it, or update its score" % tensor_id)
            now = self._now()
            row = Tensor(
                tensor_id=tensor_id,
                component_a=component_a,
                component_b=component_b,
                creator=creator,
                context=context,
                weight_profile=profile,
                version=1,
                created_at=now,
                updated_at=now,
            )
            for name in T3 + V3:
                start = (initial_score or DEFAULT_SCORE) if name in T3 else DEFAULT_SCORE
                value = dimensions.get(name)
                setattr(row, name, start if value is None else value)
            row.score = initial_score or self._weighted(row, 0)
            session.add(row)
            reply = self._tensor_reply(row)
            return {**reply, "txhash": self._record(session, "create_tensor", reply)}

        return self._store.transact(work)

    def tensor(self, tensor_id: str) -> Reply:
        """GET trust/tensor/{id}."""

        def work(session: Session) -> Reply:
            row = session.get(Tensor, tensor_id)
            if row is None:
                raise ServiceError("tensor not found")
            return self._tensor_reply(row)

        return self._store.transact(work)

    def update_tensor(
        self,
        tensor_id: str,
        score: Decimal,
        weight_profile: str,
        dimensions: dict[str, Decimal | None],
    ) -> Reply:
        """PUT trust/tensor/{id}/score: the scalar, and the dimensions that are given."""
        profile = _profile(weight_profile)
        score = _checked_score("score", score)

        def work(session: Session) -> Reply:
            row = session.get(Tensor, tensor_id, with_for_update=True)
            if row is None:
                raise ServiceError("tensor not found")
            row.score = score
            row.weight_profile = profile or row.weight_profile
            for name, value in dimensions.items():
                if value is not None:
                    setattr(row, name, value)
            row.version += 1
            row.updated_at = self._now()
            reply = self._tensor_reply(row)
            self._record(session, "update_tensor", reply)
            return reply

        return self._store.transact(work)

    # -- energy

    def _book(
        self,
        session: Session,
        account: Account,
        atp: int,
        adp: int,
        reason: str,
        operation_id: str | None,
    ) -> None:
        """Change an account and write the journal line. Refuses to go below zero."""
        for name, have, change in (("ATP", account.atp, atp), ("ADP", account.adp, adp)):
            if have + change < 0:
                raise ServiceError(
                    "component %s has %s %s, %s are needed"
                    % (account.component_id, _micro_text(have), name, _micro_text(-change))
                )
        account.atp += atp
        account.adp += adp
        account.updated_at = self._now()
        session.add(
            EnergyEntry(
                component_id=account.component_id,
                operation_id=operation_id,
                reason=reason,
                atp=atp,
                adp=adp,
                created_at=account.updated_at,
            )
        )

    def energy_operation(
        self,
        creator: str,
        component_a: str,
        component_b: str,
        operation_type: str,
        amount: Decimal,
        context: str,
    ) -> Reply:
        """POST energy/operation: plan a charge, discharge, transfer or balance (see `_MOVES`)."""
        if operation_type not in _MOVES:
            raise ServiceError("operation_type must be one of %s" % ", ".join(_MOVES))
        micro = _micro(amount)

        def work(session: Session) -> Reply:
            _component(session, component_a)
            _component(session, component_b)
            if component_a == component_b and operation_type in ("transfer", "balance"):
                raise ServiceError("a %s needs two different components" % operation_type)
            now = self._now()
            operation_id = _free_second(session, EnergyOperation, lambda n: "op_%d" % n, now)
            session.add(
                EnergyOperation(
                    operation_id=operation_id,
                    creator=creator,
                    component_a=component_a,
                    component_b=component_b,
                    operation_type=operation_type,
                    amount=micro,
                    context=context,
                    created_at=now,
                )
            )
            reply: Reply = {
                "operation_id": operation_id,
                "type": operation_type,
                "amount": _number(micro),
                "status": "pending",
            }
            return {**reply, "txhash": self._record(session, "energy_operation", reply)}

        return self._store.transact(work)

    def energy_transfer(self, operation_id: str, amount: Decimal) -> Reply:
        """POST energy/transfer: carry out a planned operation, wholly or in part.

        `status` is "completed" once the whole planned amount was moved, "executing" before.
        """
        micro = _micro(amount)

        def work(session: Session) -> Reply:
            operation = session.get(EnergyOperation, operation_id, with_for_update=True)
            if operation is None:
                raise ServiceError("energy operation not found")
            left = operation.amount - operation.executed
            if micro > left:
                raise ServiceError("only %s of the operation are left" % _micro_text(left))
            for side, atp, adp in _MOVES[operation.operation_type]:
                component = operation.component_a if side == "a" else operation.component_b
                account = _account(session, component)
                kind = operation.operation_type
                self._book(session, account, atp * micro, adp * micro, kind, operation_id)
            operation.executed += micro
            reply: Reply = {
                "operation_id": operation_id,
                "amount": _number(micro),
                "status": "completed" if micro == left else "executing",
                "timestamp": self._now(),
            }
            self._record(session, "energy_transfer", reply)
            return reply

        return self._store.transact(work)

    def energy_balance(self, component_id: str) -> Reply:
        """GET energy/balance/{component_id}: decimal strings.

        `trust_weighted_balance` is the total times the mean trust score of the component's tensors.
        """

        def work(session: Session) -> Reply:
            _component(session, component_id)
            account = _account(session, component_id)
            involved = or_(Tensor.component_a == component_id, Tensor.component_b == component_id)
            scores = list(session.scalars(select(Tensor.score).where(involved)))
            trust = sum(scores, Decimal(0)) / len(scores) if scores else DEFAULT_SCORE
            total = account.atp + account.adp
            return {
                "component_id": component_id,
                "atp_balance": _micro_text(account.atp),
                "adp_balance": _micro_text(account.adp),
                "total_energy": _micro_text(total),
                "trust_weighted_balance": _micro_text(int(total * trust)),
                "last_updated": account.updated_at,
            }

        return self._store.transact(work)

    def audit_energy(self) -> tuple[int, int, int]:
        """Micro-ATP issued by openings, held in accounts, and in the journal: all equal."""

        def work(session: Session) -> tuple[int, int, int]:
            entries = func.sum(EnergyEntry.atp + EnergyEntry.adp)
            opening = session.scalar(select(entries).where(EnergyEntry.reason == "opening"))
            held = session.scalar(select(func.sum(Account.atp + Account.adp)))
            return int(opening or 0), int(held or 0), int(session.scalar(select(entries)) or 0)

        return self._store.transact(work)


# What each type of operation does to the accounts of component_a and component_b, per unit:
# (side, ATP, ADP). Charging turns ADP into ATP, discharging ATP into ADP; no line makes or loses
# any.
_MOVES: dict[str, tuple[tuple[str, int, int], ...]] = {
    "charge": (("b", 1, -1),),  # b takes up energy that came through a
    "discharge": (("a", -1, 1),),  # a delivers energy to b, which uses it up
    "transfer": (("a", -1, 0), ("b", 1, 0)),  # charged tokens change hands
    "balance": (("a", -1, 1), ("b", 1, -1)),  # energy goes from a to b, tokens stay
}


def _profile(name: str) -> str:
    if name and name not in WEIGHTS:
        raise ServiceError("weight_profile must be one of %s" % ", ".join(WEIGHTS))
    return name


def _checked_score(name: str, value: Decimal) -> Decimal:
    """`value` to 12 decimals: what binary floating point adds behind them is no information."""
    if not 0 <= value <= 1:
        raise ServiceError("%s must be between 0 and 1" % name)
    return value.quantize(Decimal("1e-12")).normalize()
