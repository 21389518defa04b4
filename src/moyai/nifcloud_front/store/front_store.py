"""The front's SQLite file.

Always holds: a change is a transaction, on disk before it is answered. Work is written in the transaction that makes its object
busy, and its next step in the transaction that ends the step before. A process that dies loses no work and repeats one step at
most. One object has one work at most.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter

from moyai.nifcloud_front.store.rows import (
    AddressRow,
    BalancerRow,
    BridgeRow,
    CommonNetworkRow,
    DiskRow,
    ElasticBalancerRow,
    GroupRow,
    ImageRow,
    InstanceRow,
    KeyRow,
    LanRow,
    PaceRow,
    RouterRow,
    WorkRow,
    ZoneRow,
)

#: Type of a row → what it is called in the file.
KINDS: Mapping[type[Any], str] = {
    InstanceRow: "instance",
    DiskRow: "disk",
    GroupRow: "group",
    LanRow: "lan",
    BridgeRow: "bridge",
    PaceRow: "pace",
    RouterRow: "router",
    AddressRow: "address",
    BalancerRow: "balancer",
    ElasticBalancerRow: "elastic-balancer",
    KeyRow: "key",
    ImageRow: "image",
    ZoneRow: "zone",
    CommonNetworkRow: "network",
}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (kind TEXT, uid TEXT, name TEXT, place INTEGER, body TEXT, PRIMARY KEY (kind, uid));
CREATE UNIQUE INDEX IF NOT EXISTS names ON rows (kind, name) WHERE name <> '';
CREATE TABLE IF NOT EXISTS works (kind TEXT, uid TEXT, due REAL, body TEXT, PRIMARY KEY (kind, uid));
CREATE TABLE IF NOT EXISTS calls (number INTEGER PRIMARY KEY, at REAL, account TEXT, operation TEXT, code TEXT, request TEXT);
CREATE TABLE IF NOT EXISTS ledger (number INTEGER PRIMARY KEY, at REAL, verb TEXT, kind TEXT, uid TEXT, name TEXT);
CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, body TEXT);
"""
#: Calls that the request log keeps.
_CALLS = 100_000
#: Entries of the ledger that are kept in any case, the last ones.
_LEDGER = 20_000


class StoredRow(Protocol):
    @property
    def uid(self) -> str: ...
    @property
    def name(self) -> str: ...


R = TypeVar("R", bound=StoredRow)


@dataclass(frozen=True)
class LedgerEntry:
    """``verb``: made or gone."""

    at: float
    verb: str
    kind: str
    uid: str
    name: str


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


class Transaction:
    """Reads and writes of one transaction. ``now``: seconds since 1970."""

    def __init__(self, database: sqlite3.Connection, now: float) -> None:
        self._database, self.now = database, now

    def get(self, kind: type[R], uid: str) -> R | None:
        return self._one(kind, "uid", value=uid)

    def named(self, kind: type[R], name: str) -> R | None:
        return self._one(kind, "name", value=name) if name else None

    def _one(self, kind: type[R], column: str, *, value: str) -> R | None:
        query = f"SELECT body FROM rows WHERE kind = ? AND {column} = ?"
        found = self._database.execute(query, (KINDS[kind], value)).fetchone()
        return _adapter(kind).validate_json(found[0]) if found else None

    def all(self, kind: type[R]) -> list[R]:
        """In the order in which they were made."""
        found = self._database.execute("SELECT body FROM rows WHERE kind = ? ORDER BY place", (KINDS[kind],))
        return [_adapter(kind).validate_json(body) for (body,) in found]

    def put(self, row: R) -> R:
        """Raises sqlite3.IntegrityError where another row of the kind has the name."""
        kind = KINDS[type(row)]
        body = _adapter(type(row)).dump_json(row).decode()
        changed = self._database.execute(
            "UPDATE rows SET name = ?, body = ? WHERE kind = ? AND uid = ?", (row.name, body, kind, row.uid)
        )
        if not changed.rowcount:
            place = "SELECT COALESCE(MAX(place), 0) + 1 FROM rows"
            self._database.execute(f"INSERT INTO rows VALUES (?, ?, ?, ({place}), ?)", (kind, row.uid, row.name, body))
            self._note("made", row)
        return row

    def drop(self, row: StoredRow) -> None:
        self._database.execute("DELETE FROM rows WHERE kind = ? AND uid = ?", (KINDS[type(row)], row.uid))
        self._note("gone", row)
        # only what has gone is forgotten: what was made and is there stays in the ledger
        self._database.execute(
            "DELETE FROM ledger WHERE number <= (SELECT MAX(number) FROM ledger) - ? AND NOT EXISTS "
            "(SELECT 1 FROM rows WHERE rows.kind = ledger.kind AND rows.uid = ledger.uid)",
            (_LEDGER,),
        )

    def _note(self, verb: str, row: StoredRow) -> None:
        values = (self.now, verb, KINDS[type(row)], row.uid, row.name)
        self._database.execute("INSERT INTO ledger (at, verb, kind, uid, name) VALUES (?, ?, ?, ?, ?)", values)

    # ---- work

    def work(self, row: StoredRow) -> WorkRow | None:
        return self.work_of(KINDS[type(row)], row.uid)

    def work_of(self, kind: str, uid: str) -> WorkRow | None:
        found = self._database.execute("SELECT body FROM works WHERE kind = ? AND uid = ?", (kind, uid)).fetchone()
        return _adapter(WorkRow).validate_json(found[0]) if found else None

    def busy(self, row: StoredRow) -> bool:
        return self.work(row) is not None

    def schedule(self, row: StoredRow, verb: str, **wish: str) -> None:
        """Begin a work, or put another in its place."""
        self.keep(WorkRow(KINDS[type(row)], row.uid, verb, due=self.now, began=self.now, wish=wish))

    def keep(self, work: WorkRow) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO works VALUES (?, ?, ?, ?)", (work.kind, work.uid, work.due, json.dumps(asdict(work)))
        )

    def finish(self, work: WorkRow) -> None:
        self._database.execute("DELETE FROM works WHERE kind = ? AND uid = ?", (work.kind, work.uid))

    def works(self) -> list[WorkRow]:
        """The most urgent first."""
        return [
            _adapter(WorkRow).validate_json(body) for (body,) in self._database.execute("SELECT body FROM works ORDER BY due")
        ]

    # ---- who called, what was ordered

    def note_call(self, account: str, operation: str, *, code: str, request: str) -> None:
        values = (self.now, account, operation, code, request)
        self._database.execute("INSERT INTO calls (at, account, operation, code, request) VALUES (?, ?, ?, ?, ?)", values)
        self._database.execute("DELETE FROM calls WHERE number <= (SELECT MAX(number) FROM calls) - ?", (_CALLS,))

    def calls(self) -> list[tuple[str, str]]:
        """Operation and code of each call, the oldest first; the code of a success is empty."""
        return [
            (operation, code) for operation, code in self._database.execute("SELECT operation, code FROM calls ORDER BY number")
        ]

    def ledger(self) -> list[LedgerEntry]:
        return [
            LedgerEntry(*one) for one in self._database.execute("SELECT at, verb, kind, uid, name FROM ledger ORDER BY number")
        ]

    def orders(self) -> list[tuple[int, str]]:
        return [(number, body) for number, body in self._database.execute("SELECT number, body FROM orders ORDER BY number")]

    def order(self, body: str, *, number: int | None = None) -> None:
        self._database.execute("INSERT OR REPLACE INTO orders VALUES (?, ?)", (number, body))

    def drop_order(self, number: int) -> None:
        self._database.execute("DELETE FROM orders WHERE number = ?", (number,))


class FrontStore:
    """``now``: seconds since 1970. ``durable``: whether a commit survives the end of the host, beside that of the process.

    ``committed``: called after each transaction that changed something, for tests.
    """

    def __init__(
        self, file: Path, now: Callable[[], float], *, committed: Callable[[], None] | None = None, durable: bool = True
    ) -> None:
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._lock = threading.RLock()
        self._now, self._committed = now, committed
        for line in (
            "PRAGMA journal_mode = WAL",
            f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}",
            "PRAGMA busy_timeout = 20000",
        ):
            self._database.execute(line)
        self._database.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Generator[Transaction]:
        """All of it or nothing. An exception undoes it."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            before = self._database.total_changes
            try:
                yield Transaction(self._database, self._now())
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
            changed = self._database.total_changes != before
        if changed and self._committed:
            self._committed()

    def close(self) -> None:
        self._database.close()
