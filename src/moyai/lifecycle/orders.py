"""What each new machine is told: its user data, with the secrets and add-ons that are the control plane's.

Always holds: a token that late joiners are told is known to the cluster and lives long enough; the API's address, once known,
is in the record with a kubeconfig for it; what is secret is in user data only encrypted (``lifecycle.userdata``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime

from moyai.bootstrap import pki, user_data
from moyai.ccm.manifests import ManifestOptions, render
from moyai.ccm.settings import CloudConfig, GlobalConfig, LoadBalancerConfig, MoyaiConfig, RouteConfig
from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock
from moyai.core.errors import Terminal
from moyai.core.files import write_private
from moyai.images import references
from moyai.kube.quick import KubeApi
from moyai.lifecycle import addons, tokens
from moyai.lifecycle.execute import Executor, ServerOrder
from moyai.lifecycle.record import Record
from moyai.plan import steps as s
from moyai.plan.demands import choose
from moyai.plan.observed import Observed
from moyai.plan.rules import API_PORT
from moyai.plan.steps import Plan
from moyai.spec.model import Cluster


def makes_plane(plan: Plan) -> bool:
    """Whether the plan makes a control plane, so that all machines begin together."""
    return any(isinstance(step, s.CreateServer) and step.node.role == "control-plane" for step in plan.steps)


class Orders:
    """The orders of one run of ``up``. ``kube``: opens the cluster's API, where it is needed.

    Making it puts on disk what machines will be told: authorities, keys, the first token.
    """

    def __init__(
        self,
        cluster: Cluster,
        cloud: Cloud,
        record: Record,
        *,
        plan: Plan,
        observed: Observed,
        clock: Clock,
        kube: Callable[[], KubeApi],
    ) -> None:
        self._cluster, self._cloud, self._record = cluster, cloud, record
        self._plan, self._observed, self._clock, self._kube = plan, observed, clock, kube
        self._pki = pki.ensure(record.folder / "pki", clock)
        self.public_key = pki.ensure_ssh_key(record.folder)[1]
        if not record.secret("token"):
            self._new_token()
        if not record.secret("key"):
            record.keep_secret("key", secrets.token_urlsafe(32))

    def order(self, step: s.CreateServer, executor: Executor) -> ServerOrder:
        """User data and metadata of one server, from what the executor has made for it so far."""
        node, record = step.node, self._record
        pool = next((pool for pool in self._cluster.spec.node_pools if pool.name == node.pool), None)
        if node.role == "worker" and not makes_plane(self._plan):
            self._renew_token()
        facts = user_data.NodeFacts(
            cluster=self._cluster,
            node=node,
            control_plane_address=self._plan.nodes[0].address,
            pki=self._pki,
            token=record.secret("token"),
            pool=pool if node.role == "worker" else None,
            mtu=self._mtu(executor),
            mirror=self._cloud.account.image_mirror() or "",
        )
        if node.role == "worker":
            return ServerOrder(user_data.worker(facts))
        key = record.secret("key")
        text = user_data.control_plane(
            facts,
            api_address=self.api_address(executor),
            addons=self._addons(executor, node.address),
            volumes=self._volumes(executor, node.address),
            key=key,
            image_tags=self._image_tags(),
        )
        return ServerOrder(text, {user_data.KEY_METADATA: key})

    def _mtu(self, executor: Executor) -> int:
        made = executor.results.get(s.NETWORK)
        if made is not None:
            return int(made.mtu)
        network_id = executor.id(s.NETWORK)
        return next((network.mtu for network in self._observed.networks if network.id == network_id), 1450)

    def api_address(self, executor: Executor) -> str:
        """The API's floating address; once known it is kept, with a kubeconfig for it."""
        made = executor.results.get(s.FLOATING_IP)
        if made is None:
            identity = executor.id(s.FLOATING_IP)
            made = next(fip for fip in self._observed.floating_ips if fip.id == identity)
        address = str(made.address)
        file = self._record.folder / "kubeconfig"
        if self._record.api_address != address or not file.exists():
            server = f"https://{address}:{API_PORT}"
            write_private(file, pki.admin_kubeconfig(self._pki, name=self._cluster.name, server=server, clock=self._clock))
            self._record.set_api_address(address)
        return address

    def _addons(self, executor: Executor, plane_address: str) -> str:
        spec = self._cluster.spec
        floating = choose(self._cluster, self._observed).floating_network
        config = CloudConfig(
            GlobalConfig(
                auth_url=self._auth_url(),
                region=self._cloud.account.region(),
                application_credential_id=executor.id(s.CREDENTIAL),
                application_credential_secret=self._record.secret(s.CREDENTIAL),
            ),
            LoadBalancerConfig(
                floating_network_id=floating.id,
                subnet_id=executor.id(s.SUBNET),
                lb_provider=spec.load_balancer.provider,
                create_monitor=spec.load_balancer.create_monitor,
            ),
            RouteConfig(router_id=executor.id(s.ROUTER)),
            MoyaiConfig(
                cluster_uid=self._record.uid,
                node_security_group_ids=(executor.id(s.group_key("worker")),),
                fencing=spec.volumes.fencing,
            ),
        )
        return render(
            ManifestOptions(
                cluster_name=self._cluster.name,
                config=config,
                image=references.MOYAI,
                pod_cidr=str(spec.network.pod_cidr),
                api_server=f"{plane_address}:{API_PORT}",
            )
        )

    def _volumes(self, executor: Executor, plane_address: str) -> str:
        return addons.volumes(
            self._cluster,
            self._record,
            auth_url=self._auth_url(),
            region=self._cloud.account.region(),
            credential_id=executor.id(s.VOLUMES_CREDENTIAL),
            api_server=f"{plane_address}:{API_PORT}",
        )

    def _auth_url(self) -> str:
        url = self._cloud.account.login_url()
        if url is None:
            cloud = self._cluster.spec.cloud
            raise Terminal(f"cloud {cloud} does not say where its Keystone is", hint="its catalog needs an identity endpoint")
        return url

    def _image_tags(self) -> dict[str, str]:
        known = references.load()
        if known.kubernetes != self._cluster.spec.kubernetes_version:
            return {}
        return {name: known.tag(name) for name in ("etcd", "coredns")}

    def _new_token(self) -> None:
        self._record.keep_secret("token", user_data.new_token())
        self._record.keep_secret("token made", self._clock.now().isoformat())

    def _renew_token(self) -> None:
        """Before late joiners are told a token: one that the cluster knows and that still lives for a while."""
        made = self._record.secret("token made")
        if made and self._clock.now() - datetime.fromisoformat(made) < tokens.TOKEN_FRESH:
            return
        self._new_token()
        tokens.add_token(self._kube(), self._record.secret("token"), self._clock)
