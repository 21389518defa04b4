"""Carries out the steps that wait. A failure anywhere ends all waits: nobody waits minutes for what can no longer come."""

from __future__ import annotations

from collections.abc import Mapping

from moyai.core.errors import Terminal
from moyai.core.progress import Progress
from moyai.core.waiting import Stopped
from moyai.lifecycle import waits
from moyai.lifecycle.execute.context import Context, Handler, handles
from moyai.lifecycle.services import BALANCERS_TIMEOUT, LeavingBalancers
from moyai.plan import keys
from moyai.plan import steps as s


class Waiting:
    def __init__(self, context: Context) -> None:
        self._context, self._machines = context, context.cloud.machines
        self._leaving = LeavingBalancers(context.cloud.load_balancers, uid=context.uid, clock=context.clock)

    def handlers(self) -> Mapping[type[s.Step], Handler]:
        return dict(
            [
                handles(s.WaitMachines, self._for_machines),
                handles(s.WaitApi, self._for_api),
                handles(s.WaitNodes, self._for_nodes),
                handles(s.WaitBalancers, self._for_balancers),
                handles(s.WaitAddon, self._for_addon),
            ]
        )

    def _for_machines(self, step: s.WaitMachines, progress: Progress) -> None:
        context = self._context
        waits.machines(
            self._machines, context.uid, names=step.nodes, clock=context.clock, abort=context.abort, progress=progress
        )

    def _for_api(self, step: s.WaitApi, progress: Progress) -> None:
        context = self._context
        server_id = context.id(keys.server(step.node))
        waits.api_answers(
            context.api(), self._machines, server_id=server_id, clock=context.clock, abort=context.abort, progress=progress
        )
        context.require_record().set_ready()

    def _for_nodes(self, step: s.WaitNodes, progress: Progress) -> None:
        context = self._context
        servers = {name: context.id(keys.server(name)) for name in step.nodes}
        waits.nodes_ready(
            context.api(),
            self._machines,
            servers=servers,
            clock=context.clock,
            abort=context.abort,
            progress=progress,
            network=step.ready,
        )
        context.require_record().seen(step.nodes)

    def _for_balancers(self, step: s.WaitBalancers, progress: Progress) -> None:
        context = self._context
        if late := self._leaving.leave(context.api(), step.addresses, progress=progress):
            context.notes.append(
                f"load balancers {late} still sent to node {step.node} after {BALANCERS_TIMEOUT:.0f} s: "
                "its machine was removed all the same, and requests may have been lost"
            )

    def _for_addon(self, step: s.WaitAddon, progress: Progress) -> None:
        context = self._context
        try:
            waits.addons_run(
                context.api(),
                step.deployments,
                daemon_sets=step.daemon_sets,
                nodes=context.require_record().allocations,
                clock=context.clock,
                abort=context.abort,
                progress=progress,
            )
        except Stopped:
            raise
        except Terminal as error:
            if step.required:
                raise
            context.notes.append(f"{step.without}: {error.message}; all else works, and `moyai up` looks again")
