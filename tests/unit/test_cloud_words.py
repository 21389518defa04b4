"""The words of one cloud stand in its adapter alone: what the rest of the source may not say, checked on its syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import moyai
from tests.syntax import nodes_of

SOURCE = Path(moyai.__file__).parent

#: The adapters, each of which has the words of its cloud, and the local cloud, which runs OpenStack.
_FREE = ("cloud/openstack/", "cloud/memory/", "localcloud/")
_GENERATED = ("csi/proto/",)

#: Names of OpenStack's services and of its fields.
_NAMES = re.compile(
    r"nova|neutron|octavia|cinder|keystone|glance"
    r"|extraroute|allowed_address_pairs|device_owner|provisioning_status|operating_status|vm_state|task_state|power_state",
    re.IGNORECASE,
)
#: Whole strings: statuses of machines, disks and load balancers, and settings of load balancers.
_WORDS = re.compile(
    r"ACTIVE|AVAILABLE|BUILD|DEGRADED|DELETED|DELETING|DETACHING|ERROR|EXTENDING|IN-USE|OFFLINE|ONLINE|PAUSED|RESERVED|SHELVED"
    r"|SHUTOFF|SOFT_DELETED|SUSPENDED"
    # how a load balancer distributes connections, keeps clients, hands their addresses on and checks its members
    r"|ROUND_ROBIN|LEAST_CONNECTIONS|SOURCE_IP|SOURCE_IP_PORT|PROXY|PROXYV2|UDP-CONNECT|TLS-HELLO|TERMINATED_HTTPS"
)
#: Parts of strings.
_PARTS = re.compile(
    r"PENDING_|^network:|^compute:|openstack://|openstack/latest|extraroute|allowed_address_pairs|169\.254\.169\.254|^ERROR_"
    r"|admin_?pass"
)

#: (beginning of the path, pattern of the word): why it may stand there.
_ALLOWED = {
    (
        "ccm/",
        r".*[Oo]ctavia.*",
    ): "the provider that serves Services with Octavia's load balancers, and the modules that import it",
    ("bootstrap/data/unsealing_key.py", "http://.*"): "where a machine finds its metadata: no adapter runs there (ADR 0082)",
    ("bootstrap/data/unsealing_key.py", "admin_pass"): "a secret in the metadata: no adapter runs there (ADR 0082)",
    ("ccm/settings.py", "ROUND_ROBIN"): "the default of cloud.conf's lb-method, as upstream writes it",
    (
        "ccm/octavia/annotations.py",
        "ROUND_ROBIN|LEAST_CONNECTIONS|SOURCE_IP|SOURCE_IP_PORT",
    ): "upstream's values of lb-method",
    ("csi/", "DEGRADED"): "CSI's own word for the health of a volume",
    ("kube/", "DELETED"): "Kubernetes' word in a watch",
    ("kube/", "ERROR"): "Kubernetes' word in a watch",
}


#: The same names in text for people, as whole words; a product that is called so is meant truly.
_PROSE = re.compile(
    r"\b(Nova|Neutron|Octavia|Cinder(?! CSI)|Keystone|Glance|max_routes"
    r"|PROXYV2|UDP-CONNECT|[Aa]pplication [Cc]redentials?|[Aa]llowed [Aa]ddress [Pp]airs?|[Ee]xtra [Rr]outes?)\b"
)
#: File: why its text speaks of OpenStack's services.
_PROSE_ALLOWED = {
    "cli/prepare.py": "prepares the local cloud, which is an OpenStack",
    "cli/reference/cloud_conf.py": "section [LoadBalancer] has the keys of the provider that makes Octavia's load balancers",
    "plan/capacity.py": "a field of the spec has this name",
    "plan/cluster/migration.py": "a field of the spec has this name",
    "plan/route_budget.py": "a field of the spec has this name",
    "spec/cluster_network.py": "defines the field, and tells OpenStack's operators what it is called there",
}


def files() -> Iterator[str]:
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith((*_FREE, *_GENERATED)):
            yield name


def said(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """(line, word) of every word of OpenStack that the code says. Docstrings, comments and messages: ``in_prose``."""
    for node in nodes:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                words = [name]
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                words = [name]
            case ast.keyword(arg=str(name)):
                words = [name]
            case ast.ImportFrom(module=module, names=names):
                words = [module or "", *(one.name for one in names)]
            case ast.Import(names=names):
                words = [one.name for one in names]
            case ast.Constant(value=str(text)):
                if _WORDS.fullmatch(text) or _PARTS.search(text):
                    yield node.lineno, text
                continue
            case _:
                continue
        yield from ((getattr(node, "lineno", 0), word) for word in words if _NAMES.search(word))


def allowed(file: str, word: str) -> bool:
    return any(file.startswith(place) and re.fullmatch(pattern, word) for place, pattern in _ALLOWED)


def forbidden(file: str) -> list[str]:
    return [f"{file}:{line}: {word!r}" for line, word in said(nodes_of(SOURCE / file)) if not allowed(file, word)]


def test_only_the_adapter_and_the_local_cloud_speak_openstacks_words() -> None:
    found = [one for file in files() for one in forbidden(file)]
    assert found == [], "ask the adapter for a neutral value (cloud.model, cloud.load_balancers), or say in _ALLOWED why not"


def test_every_exception_is_still_needed() -> None:
    words = {(file, word) for file in files() for _, word in said(nodes_of(SOURCE / file))}
    unused = [
        rule for rule in _ALLOWED if not any(file.startswith(rule[0]) and re.fullmatch(rule[1], word) for file, word in words)
    ]
    assert unused == []


@pytest.mark.parametrize(
    "code",
    [
        'server.status == "SHUTOFF"',
        'if status in ("PENDING_CREATE",): pass',
        'port.owner.startswith("network:")',
        'f"openstack:///{server}"',
        "port.device_owner",
        "def nova_state(): pass",
        "import keystoneauth1",
        "from openstack import octavia",
        "call(extraroute=1)",
        'pool(algorithm="ROUND_ROBIN")',
        'monitor(type="UDP-CONNECT")',
        'protocol = "PROXYV2"',
        'metadata["admin_pass"]',
        'get("/openstack/latest/meta_data.json")',
    ],
)
def test_the_check_finds_what_it_is_there_for(code: str) -> None:
    assert list(said(ast.walk(ast.parse(code))))


def in_prose(file: str) -> list[str]:
    """Lines that name one of OpenStack's services."""
    lines = enumerate((SOURCE / file).read_text().splitlines(), start=1)
    return [f"{file}:{number}: {line.strip()}" for number, line in lines if _PROSE.search(line)]


def test_comments_and_messages_say_cloud_where_they_mean_any_cloud() -> None:
    found = [line for file in files() if not file.startswith(tuple(_PROSE_ALLOWED)) for line in in_prose(file)]
    assert found == [], "name the cloud or the object; or say in _PROSE_ALLOWED why the service itself is meant"


def test_every_file_that_may_name_the_services_does() -> None:
    named = {file for file in files() if in_prose(file)}
    assert [one for one in _PROSE_ALLOWED if not any(file.startswith(one) for file in named)] == []


@pytest.mark.parametrize("text", ["asks Nova", "an application credential", "allowed address pairs", "PROXYV2 to members"])
def test_the_check_of_text_finds_what_it_is_there_for(text: str) -> None:
    assert _PROSE.search(text)


def test_names_of_products_and_words_within_names_are_no_services() -> None:
    assert [one for one in ("Cinder CSI", "OctaviaProvider", "renovate") if _PROSE.search(one)] == []
