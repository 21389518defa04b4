"""Into a cloud: by an entry of clouds.yaml, as openstacksdk reads it, by an application credential, or by user and password.

Nothing is sent before the first call, and nothing is imported from OpenStack's libraries before the first ``open_session``
(they take 0.3 s and more).
"""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from moyai.cloud.adapter import UnknownCloud
from moyai.cloud.openstack.session import CONNECT_SECONDS, READ_SECONDS, CloudSession
from moyai.core.clock import Clock
from moyai.core.errors import UsageError
from moyai.core.reading import read_mapping

if TYPE_CHECKING:
    from keystoneauth1.identity.v3 import Auth
    from keystoneauth1.session import Session as KeystoneSession

#: Connections that are kept, a worker thread each.
_POOL = 32
#: Seconds of silence before a connection is probed, and between probes; so many unanswered ones end it. A router on the way
#: whose floating IP changes forgets its connections, and an answer under way is never delivered: a probe finds that out.
_PROBE_AFTER, _PROBE_EVERY, _PROBES = 5, 5, 3


@dataclass(frozen=True)
class ApplicationCredential:
    """How the parts inside a cluster log in to the cloud. ``auth_url`` is Keystone's."""

    auth_url: str
    id: str
    secret: str

    def __repr__(self) -> str:
        return f"ApplicationCredential(auth_url={self.auth_url!r}, id={self.id!r})"


@dataclass(frozen=True)
class Domain:
    """Of a user or a project, by id or by name; false where neither is given."""

    id: str = ""
    name: str = ""

    def __bool__(self) -> bool:
        return bool(self.id or self.name)


#: Every Keystone makes it when it is set up.
_FIRST_DOMAIN = Domain(id="default")


@dataclass(frozen=True)
class UserPassword:
    """A user, by id or by name, with a project, by id or by name. A domain that is not given is Keystone's first one."""

    auth_url: str
    password: str = field(repr=False)
    user_id: str = ""
    username: str = ""
    user_domain: Domain = Domain()
    project_id: str = ""
    project_name: str = ""
    project_domain: Domain = Domain()


@dataclass(frozen=True)
class Way:
    """By which way a credential's session reaches the cloud. ``interface``: which addresses of the catalog, the first that
    there is. ``endpoints``: service → address that goes before the catalog's. ``insecure`` skips TLS checks."""

    region: str = ""
    interface: tuple[str, ...] = ("public",)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    insecure: bool = False
    endpoints: Mapping[str, str] = field(default_factory=dict[str, str])


PLAIN_WAY = Way()


def open_session(
    cloud: str | None = None,
    *,
    credential: ApplicationCredential | UserPassword | None = None,
    way: Way = PLAIN_WAY,
    clock: Clock | None = None,
) -> CloudSession:
    """A session for the entry ``cloud`` of clouds.yaml (None: ``OS_CLOUD``, the only entry, or ``OS_*`` variables), or
    for a credential, which goes by ``way``. Nothing is sent before the first call.

    Raises UsageError for an entry that is not there or not complete.
    """
    for name in ("keystoneauth", "openstack", "urllib3"):
        # what they warn of comes to the user as our errors; who sets logging up still gets it
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
    session = _from_credential(credential, way, clock=clock) if credential else _from_clouds_yaml(cloud, clock)
    keystone = session.keystone
    # for what keystoneauth asks by itself, tokens above all
    cast("Any", keystone).timeout = (CONNECT_SECONDS, READ_SECONDS)
    _mount_pool(keystone)
    return session


def _from_credential(credential: ApplicationCredential | UserPassword, way: Way, *, clock: Clock | None) -> CloudSession:
    import urllib3
    from keystoneauth1 import session as ksa_session

    verify: bool | str = False if way.insecure else way.ca_file or True
    if way.insecure:
        # it was asked for; as openstacksdk does, nothing is said of it at each request
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    cert = (way.cert_file, way.key_file) if way.key_file else way.cert_file or None
    return CloudSession(
        name=credential.auth_url,
        keystone=ksa_session.Session(auth=_auth(credential), verify=verify, cert=cert, app_name="moyai"),
        region=way.region or None,
        interface=lambda _service: way.interface,
        override=way.endpoints.get,
        clock=clock,
    )


def _auth(credential: ApplicationCredential | UserPassword) -> Auth:
    from keystoneauth1.identity import v3

    if isinstance(credential, ApplicationCredential):
        return v3.ApplicationCredential(
            auth_url=credential.auth_url,
            application_credential_id=credential.id,
            application_credential_secret=credential.secret,
        )
    user_domain = credential.user_domain or _FIRST_DOMAIN
    project_domain = credential.project_domain or _FIRST_DOMAIN
    # what has an id needs no name, and Keystone refuses both at once
    user: dict[str, Any] = (
        {"user_id": credential.user_id}
        if credential.user_id
        else {"username": credential.username, **_named("user_domain", user_domain)}
    )
    project: dict[str, Any] = (
        {"project_id": credential.project_id}
        if credential.project_id
        else {"project_name": credential.project_name, **_named("project_domain", project_domain)}
    )
    return v3.Password(auth_url=credential.auth_url, password=credential.password, **user, **project)


def _named(whose: str, domain: Domain) -> dict[str, str]:
    return {f"{whose}_id": domain.id} if domain.id else {f"{whose}_name": domain.name}


#: What openstacksdk raises for a value of another type than it expects, and for a kind of login whose library is not installed.
_MISREAD = (TypeError, ValueError, LookupError, AttributeError, ImportError)


def _from_clouds_yaml(cloud: str | None, clock: Clock | None) -> CloudSession:
    import openstack.config
    from keystoneauth1 import exceptions as ksa
    from keystoneauth1.identity.base import BaseIdentityPlugin
    from openstack import exceptions as sdk
    from openstack.config import loader

    # openstacksdk skips a file that it cannot parse, and then says that the cloud is not there
    for file in map(Path, [os.environ.get("OS_CLIENT_CONFIG_FILE") or "", *loader.CONFIG_FILES]):
        if _may_be_read(file) and file.suffix != ".json":
            clouds: Any = read_mapping(file, should="a clouds.yaml").get("clouds") or {}
            entries = cast("dict[Any, Any]", clouds).items() if isinstance(clouds, dict) else [(None, None)]
            if not all(isinstance(key, str) and isinstance(entry, dict) for key, entry in entries):
                raise UsageError(f"{file}: clouds: should be a mapping of names to mappings")
            break
    try:
        config = openstack.config.OpenStackConfig(app_name="moyai")
    except (sdk.ConfigException, OSError, *_MISREAD) as error:
        raise UsageError(f"clouds.yaml cannot be read: {' '.join(str(error).split())}") from error
    names = sorted(name for name in config.get_cloud_names() if name != "defaults")
    listed = f"there are: {', '.join(names)}" if names else f"there is none; it is looked for in {_config_folders()}"
    wanted = cloud or cast("str | None", cast("Any", config).default_cloud)
    if not wanted or wanted == "defaults":
        raise UnknownCloud("no cloud named", hint=f"name an entry of clouds.yaml; {listed}")
    if wanted not in names:
        raise UnknownCloud(f"clouds.yaml has no cloud {wanted!r}", hint=listed)
    try:
        with warnings.catch_warnings():
            # openstacksdk 4.22 warns about an argument that only it gives, to itself
            warnings.simplefilter("ignore")
            region = config.get_one(cloud=wanted)
        keystone = region.get_session()
    except (sdk.ConfigException, ksa.ClientException, OSError, *_MISREAD) as error:
        raise UsageError(f"the cloud {wanted!r} of clouds.yaml is not complete: {' '.join(str(error).split())}") from error
    if not isinstance(keystone.auth, BaseIdentityPlugin):
        raise UsageError(
            f"the cloud {wanted!r} of clouds.yaml: auth_type {region.config.get('auth_type')!r} leads past Keystone",
            hint="moyai logs in at Keystone, by password, application credential or token",
        )

    def override(service: str) -> str | None:
        # openstacksdk takes the address of the login for Keystone's API where no project is named; it may lack the version
        named = service != "identity" or {"identity_endpoint_override", "identity_endpoint"} & set(region.config)
        return region.get_endpoint(service) if named else None

    return CloudSession(
        name=wanted,
        keystone=keystone,
        region=region.get_region_name(),
        interface=region.get_interface,
        override=override,
        clock=clock,
    )


def _may_be_read(file: Path) -> bool:
    """openstacksdk passes over a file that it may not read, for example of the operator's in /etc/openstack."""
    try:
        return file.is_file() and os.access(file, os.R_OK)
    except PermissionError:
        return False


def _config_folders() -> str:
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    return f"the current folder, {home}/openstack and /etc/openstack"


def _mount_pool(keystone: KeystoneSession) -> None:
    from keystoneauth1.session import TCPKeepAliveAdapter

    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_EVERY),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES),
    ]

    class _LargeBlocks(TCPKeepAliveAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            # pieces of 1 MB instead of 16 kB: an image upload sends gigabytes
            super().init_poolmanager(*args, **{**kwargs, "blocksize": 1 << 20, "socket_options": options})

    for scheme in ("https://", "http://"):
        # as many kept connections as worker threads: with fewer, urllib3 throws away and reconnects
        cast("Any", keystone).mount(scheme, _LargeBlocks(pool_connections=16, pool_maxsize=_POOL))
