"""Carries out the step that gives a restored cluster its etcd's data."""

from __future__ import annotations

import json
from collections.abc import Mapping

from moyai.core.errors import Retriable, Terminal
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.lifecycle import waits
from moyai.lifecycle.etcd_data import MakeData
from moyai.lifecycle.execute.context import Context, Handler, handles
from moyai.plan import keys
from moyai.plan import steps as s

#: Where the machine waits for the data: ``bootstrap/data/restore_etcd.py``.
PATH = "/moyai/etcd"
#: Seconds between two words of the machine, which unpacks and syncs the data before it answers.
WORD_TIMEOUT = 120.0
_PAUSE = 0.5


class Restoring:
    """``data``: makes etcd's data for the member of this name and address; called when the machine is about to get them."""

    def __init__(self, context: Context, *, data: MakeData) -> None:
        self._context, self._data = context, data

    def handlers(self) -> Mapping[type[s.Step], Handler]:
        return dict([handles(s.SendEtcdData, self._send)])

    def _send(self, step: s.SendEtcdData, progress: Progress) -> None:
        """Content where the API answers, because the machine has the data then."""
        context = self._context
        api = context.api()
        data = self._data(step.node, step.address)

        def look() -> NotYet | None:
            if api.ready():
                return None
            with data.file.open("rb") as content:
                status, text = api.send(PATH, content, size=data.size, headers={"X-Sha256": data.sha256}, timeout=WORD_TIMEOUT)
            if status == 200:
                return None
            said = _said(text)
            if status == 400:
                raise Terminal(f"server {step.node} does not take etcd's data: {said}")
            return NotYet(f"server {step.node} does not take etcd's data yet: {said}")

        def late(seen: NotYet) -> Terminal:
            console = waits.last_lines(context.cloud.machines, context.id(keys.server(step.node)))
            return Terminal(
                f"waited {waits.API_TIMEOUT:.0f} s for server {step.node} to take etcd's data: {seen.missing}; "
                f"its console ends with: {console}",
                hint="the same command goes on here",
            )

        until(
            look,
            clock=context.clock,
            timeout=waits.API_TIMEOUT,
            pause=_PAUSE,
            retry=Retriable,
            on_wait=progress.progress,
            late=late,
            abort=context.abort,
        )


def _said(text: str) -> str:
    try:
        return str(json.loads(text)["said"])
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())[:200]
