"""Keeps a node's own files in line with the mode of the pod network while that changes: the configuration of the CNI plugins,
and the rules for packets that leave the pod network.

Always holds: a file is whole, and is written only where it differs; the rules in the kernel are changed after their file, in
one transaction, so that a boot in between brings the same. A pod that runs keeps its interface as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from moyai.agent.pod_network.kernel import NoUplink, find_uplink
from moyai.core.errors import NoSpace, Retriable
from moyai.core.files import write_private
from moyai.kube.informer import Informer
from moyai.kube.objects import Node
from moyai.kube.workqueue import WorkQueue
from moyai.linux.libnftables import Nftables, NftError
from moyai.linux.netlink import Netlink
from moyai.plan.pod_network.live_files import LiveFiles
from moyai.plan.pod_network.node_files import CONFLIST, RULES, conflist
from moyai.runtime.controllers import Part
from moyai.runtime.reconciler import DONE, Result

_log = logging.getLogger(__name__)
_ALL = "node's files"
_LATER = 600.0


def set_rules(text: str) -> None:
    """In the kernel of this process's network. Raises NftError."""
    nft = Nftables()
    try:
        nft.run_text(text)
    finally:
        nft.close()


class NodeFilesController:
    """``root``: where the node's files are, as seen from here. ``namespace``: of the kernel's network, None: the process's."""

    def __init__(
        self,
        *,
        nodes: Informer[Node],
        node: str,
        files: LiveFiles,
        root: Path = Path("/"),
        namespace: str | None = None,
        apply: Callable[[str], None] = set_rules,
    ) -> None:
        self._nodes, self._node, self._files, self._root = nodes, node, files, root
        self._namespace, self._apply = namespace, apply
        self._missing = "the node's files have not been written yet"

    def part(self) -> Part:
        return Part("node-files", self.reconcile, self.watch)

    def watch(self, queue: WorkQueue) -> None:
        def changed(key: str, old: Node | None, new: Node | None) -> None:
            if key == self._node and new and (old is None or old.pod_cidrs != new.pod_cidrs):
                queue.add(_ALL)

        self._nodes.add_handler(changed)

    def not_ready(self) -> str:
        return self._missing

    async def reconcile(self, _key: str) -> Result:
        """Raises Retriable where a file cannot be written, or the kernel refuses the rules."""
        node = self._nodes.get(self._node)
        if node is None or not node.pod_cidrs or not node.internal_ips:
            return DONE
        try:
            async with Netlink.open(self._namespace) as netlink:
                uplink = await find_uplink(netlink, node.internal_ips[0])
            text = conflist(node.pod_cidrs[0], uplink.mtu - self._files.overhead)
            await asyncio.to_thread(self._write, CONFLIST, text)
            await asyncio.to_thread(self._write, RULES, self._files.rules)
            await asyncio.to_thread(self._apply, self._files.rules)
        except (OSError, NoSpace, NftError, NoUplink) as error:
            self._missing = f"the node's files: {error}"
            raise Retriable(self._missing) from error
        self._missing = ""
        return Result(requeue_after=_LATER)

    def _write(self, path: str, text: str) -> None:
        file = self._root / path
        try:
            if file.read_text(encoding="utf-8") == text:
                return
        except FileNotFoundError:
            pass
        write_private(file, text)
        _log.info("/%s is changed", path)
