"""Makes a new cloud's content: databases, keys, users and catalog, then flavors, volume types, the external network, zones.

Only ever run on an empty state folder, or one that an interrupted run left (which is emptied first). Tasks run side by
side and start services as soon as their database stands.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from typing import Any

from moyai.core.clock import Clock
from moyai.core.errors import Conflict, MoyaiError
from moyai.core.files import naming, write_private
from moyai.core.graph import Task
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.linux.process import ProcessError, run
from moyai.localcloud import database
from moyai.localcloud.api import Api
from moyai.localcloud.control import Control
from moyai.localcloud.layout import FLAVORS
from moyai.localcloud.profile import ProfileNetwork
from moyai.localcloud.secrets import PROJECT, SERVICE_USERS
from moyai.localcloud.services.rendering import ServiceContext, python_env
from moyai.localcloud.services.volume import BACKEND_NAME, MULTIATTACH_TYPE, VOLUME_TYPE

EXTERNAL_NETWORK = "public"
_CELL0 = "00000000-0000-0000-0000-000000000000"
_CELL1 = "11111111-1111-1111-1111-111111111111"
#: Catalog: service name → type and path behind its port.
_CATALOG = (
    ("glance", "image", "glance", ""),
    ("placement", "placement", "placement", ""),
    ("nova", "compute", "nova", "/v2.1"),
    ("neutron", "network", "neutron", ""),
    ("cinder", "block-storage", "cinder", "/v3/%(project_id)s"),
    ("cinderv3", "volumev3", "cinder", "/v3/%(project_id)s"),
    ("octavia", "load-balancer", "octavia", ""),
    ("registry", "container-registry", "registry", ""),
)
#: What starts once its database stands: task → services.
STARTS: Mapping[str, tuple[str, ...]] = {
    "keystone": ("keystone",),
    "neutron": ("neutron-server",),
    "placement": ("placement",),
    "nova": ("nova-conductor", "nova-scheduler", "nova-api"),
    "cinder": ("cinder-api", "cinder-scheduler", "cinder-volume"),
    "glance": ("glance-api",),
    "octavia": ("octavia-api", "moyai-lbd"),
}


class Setup:
    """The tasks of a new cloud. ``api`` may be used once Keystone stands."""

    def __init__(self, context: ServiceContext, control: Control, *, api: Api, clock: Clock) -> None:
        self._context = context
        self._control = control
        self._api = api
        self._clock = clock

    def tasks(self) -> list[Task]:
        def schema(name: str, work: Callable[[], None]) -> Task:
            def task(_: Mapping[str, Any], step: Progress) -> None:
                work()
                step.progress("tables made; starting")
                self._control.release([service for service in STARTS[name] if service in self._names()])

            return Task(f"cloud: {name} database", task, after=("cloud: databases",))

        # the longest ways first: Keystone's catalog and Neutron's agents are what the others wait for
        return [
            Task("cloud: databases", self._databases),
            schema("keystone", self._keystone),
            schema("neutron", self._neutron),
            schema("placement", self._simple("placement", "placement-manage", "placement/placement.conf", "db", "sync")),
            schema("nova", self._nova),
            schema("cinder", self._simple("cinder", "cinder-manage", "cinder.conf", "db", "sync")),
            *(
                [schema("octavia", self._simple("octavia", "octavia-db-manage", "octavia.conf", "upgrade", "head"))]
                if self._has("octavia")
                else []
            ),
            schema("glance", self._simple("glance", "glance-manage", "glance-api.conf", "db_sync")),
            Task("cloud: users and catalog", self._catalog, after=("cloud: keystone database",)),
            Task("cloud: external network", self._network, after=("cloud: users and catalog", "cloud: neutron database")),
            Task("cloud: volume types", self._volume_types, after=("cloud: users and catalog", "cloud: cinder database")),
            Task("cloud: flavors and zones", self._compute, after=("cloud: users and catalog", "cloud: nova database")),
        ]

    def _has(self, service: str) -> bool:
        return service not in self._context.config.profile.without

    def _names(self) -> set[str]:
        return {status.name for status in self._control.status()}

    # ---- databases

    def _databases(self, _: Mapping[str, Any], step: Progress) -> None:
        paths = self._context.paths
        step.progress("MariaDB")
        database.install(paths)
        self._control.release(["mariadb"])
        self._control.wait_ready(["mariadb"], 60)
        database.relaxed(paths, on=True)
        database.create(paths)

    def _manage(self, program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        env = {**python_env(self._context), **(environment or {})}
        log = self._context.paths.log / "setup.log"
        try:
            done = run([self._context.env.program(program), *arguments], env=env, timeout=300)
        except ProcessError as error:
            with naming(log), log.open("a") as file:
                file.write(f"{error}\n{error.output}\n")
            raise MoyaiError(f"{program} {arguments[-2]} {arguments[-1]} failed: {error}", hint=f"see {log}") from error
        with naming(log), log.open("a") as file:
            file.write(done.stdout + done.stderr)

    def _simple(self, _: str, program: str, config: str, *arguments: str) -> Callable[[], None]:
        return lambda: self._manage(program, "--config-file", self._context.conf(config), *arguments)

    def _keystone(self) -> None:
        context = self._context
        # two keys each, as keystone-manage fernet_setup and credential_setup write them, without their nine seconds
        for folder in ("fernet", "receipts", "credential"):
            keys = context.paths.state / "keystone" / folder
            for number in ("0", "1"):
                write_private(keys / number, base64.urlsafe_b64encode(os.urandom(32)))
        directory = ("--config-dir", context.conf("keystone"))
        self._manage("keystone-manage", *directory, "db_sync")
        url = context.config.url("keystone", "/v3/")
        self._manage(
            "keystone-manage",
            *directory,
            "bootstrap",
            *(word for kind in ("admin", "internal", "public") for word in (f"--bootstrap-{kind}-url", url)),
            "--bootstrap-region-id",
            context.config.region,
            environment={"OS_BOOTSTRAP_PASSWORD": context.secrets.admin},
        )

    def _neutron(self) -> None:
        self._manage("neutron-db-manage", "--config-file", self._context.conf("neutron.conf"), "upgrade", "heads")

    def _nova(self) -> None:
        context = self._context
        config = ("--config-file", context.conf("nova.conf"))
        self._manage("nova-manage", *config, "db", "sync", "--local_cell")
        database.copy_schema(context.paths, "nova", target="nova_cell0")
        self._manage("nova-manage", *config, "api_db", "sync")
        hosts = ", ".join(
            f"(NOW(), (SELECT id FROM cell_mappings WHERE name = 'cell1'), '{hypervisor.host}')"
            for hypervisor in context.config.hypervisors
        )
        # what `nova-manage cell_v2` would write in three calls of four seconds each
        statements = f"""USE nova_api;
INSERT INTO cell_mappings (created_at, uuid, name, transport_url, database_connection) VALUES
 (NOW(), '{_CELL0}', 'cell0', 'none:///', '{context.database("nova_cell0")}'),
 (NOW(), '{_CELL1}', 'cell1', '{context.transport_url}', '{context.database("nova")}');
INSERT INTO host_mappings (created_at, cell_id, host) VALUES {hosts};
"""
        database.sql(context.paths, statements)

    # ---- users and catalog

    def _catalog(self, _: Mapping[str, Any], step: Progress) -> None:
        context, api = self._context, self._api
        step.progress("waits for Keystone")
        self._control.wait_ready(["keystone"], 120)
        step.progress("endpoints, users, roles")

        def post(path: str, kind: str, **fields: Any) -> str:
            return api.post("keystone", f"/v3/{path}", body={kind: fields})[kind]["id"]

        def grant(project: str, user: str, *, role: str) -> None:
            api.request("PUT", "keystone", path=f"/v3/projects/{project}/users/{user}/roles/{role}")

        # before the users: a service logs in as soon as its user exists, and keeps the catalog that it then gets for an hour
        for name, kind, port, path in (one for one in _CATALOG if self._has(one[0])):
            identifier = post("services", "service", name=name, type=kind)
            for interface in ("public", "internal", "admin"):
                url = context.config.url(port, path)
                post(
                    "endpoints",
                    "endpoint",
                    service_id=identifier,
                    interface=interface,
                    url=url,
                    region_id=context.config.region,
                )
        roles = {role["name"]: role["id"] for role in api.get("keystone", "/v3/roles")["roles"]}
        for name in ("service", "load-balancer_admin", "load-balancer_member"):
            if name not in roles:
                roles[name] = post("roles", "role", name=name)
        service = post("projects", "project", name="service", domain_id="default")
        for name in SERVICE_USERS:
            user = post("users", "user", name=name, domain_id="default", password=context.secrets.services[name])
            for role in ("admin", "service"):
                grant(service, user, role=roles[role])
        demo = post("projects", "project", name=PROJECT, domain_id="default")
        user = post("users", "user", name=PROJECT, domain_id="default", password=context.secrets.demo, default_project_id=demo)
        for role in ("member", "load-balancer_member"):
            grant(demo, user, role=roles[role])
        admin = api.get("keystone", "/v3/users?name=admin")["users"][0]["id"]
        project = api.get("keystone", "/v3/projects?name=admin")["projects"][0]["id"]
        grant(project, admin, role=roles["load-balancer_admin"])
        grant(demo, admin, role=roles["admin"])
        if context.config.profile.login == "application-credential":
            own = Api(context.config, context.secrets.demo, user=PROJECT, project=PROJECT)
            given = {"name": PROJECT, "secret": context.secrets.credential, "description": "what clouds.yaml logs in with"}
            own.post("keystone", f"/v3/users/{user}/application_credentials", body={"application_credential": given})

    # ---- what users find in their cloud

    def _network(self, _: Mapping[str, Any], step: Progress) -> None:
        config, api = self._context.config, self._api
        step.progress("waits for Neutron")
        self._control.wait_ready(["neutron-server"], 120)
        network = {
            "name": EXTERNAL_NETWORK,
            "router:external": True,
            "provider:network_type": "flat",
            "provider:physical_network": "public",
            "port_security_enabled": False,
        }
        made = self._patiently(lambda: api.post("neutron", "/v2.0/networks", body={"network": network}))["network"]["id"]
        subnet = {
            "name": "public-subnet",
            "network_id": made,
            "ip_version": 4,
            "cidr": str(config.external),
            "gateway_ip": config.external_gateway,
            "enable_dhcp": False,
            "allocation_pools": [{"start": str(config.external[10]), "end": str(config.external[-6])}],
        }
        api.post("neutron", "/v2.0/subnets", body={"subnet": subnet})
        for one in config.profile.networks:
            self._profile_network(one)

    def _profile_network(self, one: ProfileNetwork) -> None:
        external = one.kind == "external"
        network = {
            "name": one.name,
            "router:external": external,
            "shared": not external,
            "provider:network_type": "flat",
            "provider:physical_network": one.name,
            "port_security_enabled": not external,
        }
        made = self._api.post("neutron", "/v2.0/networks", body={"network": network})["network"]["id"]
        first, last = one.pool
        subnet = {
            "name": f"{one.name}-subnet",
            "network_id": made,
            "ip_version": 4,
            "cidr": one.cidr,
            "gateway_ip": str(one.network[1]),
            "enable_dhcp": not external,
            "allocation_pools": [{"start": first, "end": last}],
        }
        self._api.post("neutron", "/v2.0/subnets", body={"subnet": subnet})

    def _volume_types(self, _: Mapping[str, Any], step: Progress) -> None:
        api = self._api
        step.progress("waits for Cinder")
        self._control.wait_ready(["cinder-api"], 120)
        project = api.project_id()
        for name, more in ((VOLUME_TYPE, {}), (MULTIATTACH_TYPE, {"multiattach": "<is> True"})):
            kind = {"name": name, "extra_specs": {"volume_backend_name": BACKEND_NAME, **more}}
            self._patiently(lambda kind=kind: api.post("cinder", f"/v3/{project}/types", body={"volume_type": kind}))

    def _compute(self, _: Mapping[str, Any], step: Progress) -> None:
        api, paths, hypervisors = self._api, self._context.paths, self._context.config.hypervisors
        step.progress("waits for Nova")
        self._control.wait_ready(["nova-api"], 120)
        for name, cpus, memory, disk in FLAVORS:
            flavor = {"name": name, "id": name, "vcpus": cpus, "ram": memory, "disk": disk}
            self._patiently(lambda flavor=flavor: api.post("nova", "/v2.1/flavors", body={"flavor": flavor}))
        step.progress("waits for the hypervisors")
        self._until(
            "hypervisors",
            lambda: int(database.sql(paths, "SELECT COUNT(*) FROM nova.compute_nodes WHERE deleted=0;")) >= len(hypervisors),
        )
        # a hypervisor writes its traits last; Placement refuses one of two writes at once, and the hypervisor then begins again
        # after a minute, with no room for machines until then
        traits = "SELECT COUNT(DISTINCT resource_provider_id) FROM placement.resource_provider_traits;"
        self._until("hypervisors in Placement", lambda: int(database.sql(paths, traits)) >= len(hypervisors))
        database.sql(paths, "UPDATE nova.compute_nodes SET mapped=1;")
        for hypervisor in hypervisors:
            body = {"name": hypervisor.zone, "availability_zone": hypervisor.zone}
            aggregate = api.post("nova", "/v2.1/os-aggregates", body={"aggregate": body})["aggregate"]["id"]
            action = {"add_host": {"host": hypervisor.host}}
            self._patiently(lambda a=aggregate, b=action: api.post("nova", f"/v2.1/os-aggregates/{a}/action", body=b))

    def _patiently(self, call: Callable[[], Any], timeout: float = 60) -> Any:
        """Try again while the service behind is still coming up."""

        def attempt() -> Any:
            try:
                return call()
            except Conflict:
                return None

        return until(attempt, clock=self._clock, timeout=timeout, pause=0.5)

    def _until(self, what: str, true: Callable[[], bool], *, timeout: float = 240) -> None:
        def late(_: NotYet) -> MoyaiError:
            return MoyaiError(f"{what} did not come up within {timeout:.0f} s", hint="see `moyai cloud logs`")

        until(lambda: true() or NotYet(what), clock=self._clock, timeout=timeout, pause=0.3, retry=(), late=late)
