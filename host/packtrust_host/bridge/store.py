"""The embedded bridge's database: schema and transactions (SQLAlchemy 2).

SQLite today; nothing here is particular to it but `_tune_sqlite`, so that a PostgreSQL URL is
enough to move. Energy is kept in whole micro-ATP and scores as decimal text, so no backend rounds
them. No key half is ever stored: only SHA-256 references and, per LCT, the key that verifies
statements.
"""

import os
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    URL,
    BigInteger,
    CheckConstraint,
    Dialect,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Text,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.types import TypeDecorator

SCHEMA_VERSION = "1"
_ATTEMPTS = 5

T = TypeVar("T")


class DecimalText(TypeDecorator[Decimal]):
    """An exact decimal, kept as text: SQLite's NUMERIC would go through binary floating point."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        """To the database."""
        return None if value is None else format(value, "f")

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:
        """From the database."""
        return None if value is None else Decimal(value)


class Base(DeclarativeBase):
    """Of every table here."""

    type_annotation_map = {int: BigInteger, Decimal: DecimalText}  # noqa: RUF012


def _serial() -> Mapped[int]:
    # SQLite numbers rows by itself only for plain INTEGER.
    return mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)


class Meta(Base):
    """Facts about the database itself."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class Component(Base):
    """A registered component and its last verification. Times are unix seconds."""

    __tablename__ = "components"
    component_id: Mapped[str] = mapped_column(String(50), primary_key=True)
    creator: Mapped[str] = mapped_column(String(34))
    component_data: Mapped[str] = mapped_column(Text)
    context: Mapped[str] = mapped_column(Text)
    manufacturer_id: Mapped[str] = mapped_column(Text)
    registered_at: Mapped[int]
    verified_at: Mapped[int] = mapped_column(default=0)
    verification_method: Mapped[str] = mapped_column(String(40), default="")
    verification_evidence: Mapped[str] = mapped_column(String(64), default="")
    verification_notes: Mapped[str] = mapped_column(Text, default="")


class Lct(Base):
    """A relationship. `attest_key` verifies statements; it is erased when the LCT ends."""

    __tablename__ = "lcts"
    lct_id: Mapped[str] = mapped_column(String(160), primary_key=True)
    component_a: Mapped[str] = mapped_column(ForeignKey("components.component_id"), index=True)
    component_b: Mapped[str] = mapped_column(ForeignKey("components.component_id"), index=True)
    creator: Mapped[str] = mapped_column(Text)
    context: Mapped[str] = mapped_column(Text)
    proxy_id: Mapped[str] = mapped_column(Text)
    pairing_status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[int]
    updated_at: Mapped[int]
    last_contact_at: Mapped[int]
    attest_key: Mapped[bytes | None] = mapped_column(LargeBinary(32))


class HalfReference(Base):
    """SHA-256 of a half that was issued: the primary key makes each half unique for ever."""

    __tablename__ = "half_references"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    lct_id: Mapped[str] = mapped_column(ForeignKey("lcts.lct_id"), index=True)
    part: Mapped[str] = mapped_column(String(16))


class Challenge(Base):
    """A pairing in progress or done."""

    __tablename__ = "challenges"
    challenge_id: Mapped[str] = mapped_column(String(160), primary_key=True)
    component_a: Mapped[str] = mapped_column(ForeignKey("components.component_id"))
    component_b: Mapped[str] = mapped_column(ForeignKey("components.component_id"))
    creator: Mapped[str] = mapped_column(Text)
    operational_context: Mapped[str] = mapped_column(Text)
    proxy_id: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int]
    completed: Mapped[bool] = mapped_column(default=False)


class Tensor(Base):
    """Trust of a pair: the scalar of today's routes, and T3 and V3 by dimension, all in 0..1."""

    __tablename__ = "tensors"
    tensor_id: Mapped[str] = mapped_column(String(110), primary_key=True)
    component_a: Mapped[str] = mapped_column(ForeignKey("components.component_id"), index=True)
    component_b: Mapped[str] = mapped_column(ForeignKey("components.component_id"), index=True)
    creator: Mapped[str] = mapped_column(Text)
    context: Mapped[str] = mapped_column(Text)
    weight_profile: Mapped[str] = mapped_column(String(8))
    score: Mapped[Decimal]
    talent: Mapped[Decimal]
    training: Mapped[Decimal]
    temperament: Mapped[Decimal]
    valuation: Mapped[Decimal]
    veracity: Mapped[Decimal]
    validity: Mapped[Decimal]
    version: Mapped[int]
    created_at: Mapped[int]
    updated_at: Mapped[int]


class Account(Base):
    """ATP and ADP of a component, in micro-ATP. Neither can go below zero."""

    __tablename__ = "accounts"
    __table_args__ = (CheckConstraint("atp >= 0"), CheckConstraint("adp >= 0"))
    component_id: Mapped[str] = mapped_column(ForeignKey("components.component_id"), primary_key=True)
    atp: Mapped[int]
    adp: Mapped[int]
    updated_at: Mapped[int]


class EnergyOperation(Base):
    """A planned movement of energy, carried out by one or more transfers. Amounts in micro-ATP."""

    __tablename__ = "energy_operations"
    operation_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    creator: Mapped[str] = mapped_column(Text)
    component_a: Mapped[str] = mapped_column(ForeignKey("components.component_id"))
    component_b: Mapped[str] = mapped_column(ForeignKey("components.component_id"))
    operation_type: Mapped[str] = mapped_column(String(16))
    amount: Mapped[int]
    executed: Mapped[int] = mapped_column(default=0)
    context: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int]


class EnergyEntry(Base):
    """One line of the journal: what an account gained and lost, in micro-ATP, and why."""

    __tablename__ = "energy_entries"
    entry: Mapped[int] = _serial()
    component_id: Mapped[str] = mapped_column(ForeignKey("components.component_id"), index=True)
    operation_id: Mapped[str | None] = mapped_column(ForeignKey("energy_operations.operation_id"))
    reason: Mapped[str] = mapped_column(String(16))
    atp: Mapped[int]
    adp: Mapped[int]
    created_at: Mapped[int]


class Transaction(Base):
    """The chain of what was written: each hash covers the one before it."""

    __tablename__ = "transactions"
    sequence: Mapped[int] = _serial()
    txhash: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[int]


class StoreError(Exception):
    """The database cannot be used; the text says why and what to do."""


def _tune_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "busy_timeout=5000"):
            connection.execute("PRAGMA " + pragma)

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        # The write lock from the start: no transaction fails half way for a lock it cannot get.
        connection.exec_driver_sql("BEGIN IMMEDIATE")


class Store:
    """An open database. `where` is a path of a SQLite file or a SQLAlchemy URL."""

    def __init__(self, where: str | Path) -> None:
        text = str(where)
        url = make_url(text) if "://" in text else URL.create("sqlite", database=text)
        self._lock = threading.Lock()
        if url.get_backend_name() == "sqlite" and url.database:
            # It holds keys that verify statements: for its owner's eyes only.
            os.close(os.open(url.database, os.O_CREAT | os.O_RDWR, 0o600))
        # Parameters stay out of error texts: some are keys.
        self._engine = create_engine(url, hide_parameters=True)
        if url.get_backend_name() == "sqlite":
            _tune_sqlite(self._engine)
        Base.metadata.create_all(self._engine)
        found = self.transact(self._schema_version)
        if found != SCHEMA_VERSION:
            self.close()
            raise StoreError(
                "the bridge's database has schema %s, this program needs %s: "
                "use the program that made it, or name a new file" % (found, SCHEMA_VERSION)
            )

    @staticmethod
    def _schema_version(session: Session) -> str:
        row = session.get(Meta, "schema")
        if row is None:
            session.add(Meta(key="schema", value=SCHEMA_VERSION))
            return SCHEMA_VERSION
        return row.value

    def transact(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one transaction, all or nothing.

        Where another process took the same id in between, it is run again, so `work` must do
        nothing but database work.
        """
        with self._lock:
            for attempt in range(_ATTEMPTS):
                try:
                    with Session(self._engine, expire_on_commit=False) as session, session.begin():
                        return work(session)
                except IntegrityError:
                    if attempt == _ATTEMPTS - 1:
                        raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()
