"""MetalLB's kinds as objects of a cluster: their namespace, their definitions, and the rights of the controllers to them.

The kinds, their fields, the fields' limits and the columns are those of MetalLB 0.15 (its API reference), so that manifests
written for it are accepted as they stand. The node of a ServiceL2Status may change, and that of MetalLB's may not: here a
Service has one object for all of its time. Status fields of a pool are MetalLB's, and ``conditions``.
"""

from __future__ import annotations

from typing import Any

from moyai.kube.resources import METALLB
from moyai.plan.announce.metallb_words import NAMESPACE

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_TRUTH: Schema = {"type": "boolean"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}


def _object(fields: dict[str, Schema] | None = None, *required: str) -> Schema:
    found: Schema = {"type": "object"}
    if fields:
        found["properties"] = fields
    if required:
        found["required"] = list(required)
    return found


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _number(least: int | None = None, most: int | None = None, **more: Any) -> Schema:
    limits = {key: value for key, value in (("minimum", least), ("maximum", most)) if value is not None}
    return {"type": "integer", "format": "int64" if (most or 0) > 2**31 else "int32", **limits, **more}


_EXPRESSION = _object({"key": _TEXT, "operator": _TEXT, "values": _TEXTS}, "key", "operator")
_SELECTORS = _list(
    _object({"matchExpressions": _list(_EXPRESSION), "matchLabels": {"type": "object", "additionalProperties": _TEXT}})
)
_ASN = _number(0, 4294967295)
_CONDITION = _object(
    {
        "type": _TEXT,
        "status": _TEXT,
        "reason": _TEXT,
        "message": _TEXT,
        "lastTransitionTime": {"type": "string", "format": "date-time"},
    }
)
#: Fields by which advertisements choose.
_CHOICE: dict[str, Schema] = {
    "ipAddressPools": _TEXTS,
    "ipAddressPoolSelectors": _SELECTORS,
    "nodeSelectors": _SELECTORS,
    "serviceSelectors": _SELECTORS,
}
_POOL = _object(
    {
        "addresses": _TEXTS,
        "autoAssign": {**_TRUTH, "default": True},
        "avoidBuggyIPs": {**_TRUTH, "default": False},
        "serviceAllocation": _object(
            {
                "priority": {"type": "integer"},
                "namespaces": _TEXTS,
                "namespaceSelectors": _SELECTORS,
                "serviceSelectors": _SELECTORS,
            }
        ),
    },
    "addresses",
)
_POOL_STATUS = _object(
    {
        **{name: _number(format="int64") for name in ("assignedIPv4", "assignedIPv6", "availableIPv4", "availableIPv6")},
        "conditions": _list(_CONDITION),
    }
)
_L2 = _object({**_CHOICE, "interfaces": _TEXTS})
_BGP = _object(
    {
        **_CHOICE,
        "aggregationLength": _number(1, default=32),
        "aggregationLengthV6": _number(default=128),
        "communities": _TEXTS,
        "localPref": _number(),
        "peers": _TEXTS,
    }
)
_PEER_1 = {
    "bfdProfile": _TEXT,
    "ebgpMultiHop": _TRUTH,
    "holdTime": _TEXT,
    "keepaliveTime": _TEXT,
    "myASN": _ASN,
    "nodeSelectors": _SELECTORS,
    "password": _TEXT,
    "peerASN": _ASN,
    "peerAddress": _TEXT,
    "peerPort": _number(0, 16384),
    "routerID": _TEXT,
    "sourceAddress": _TEXT,
}
_PEER_2 = {
    **_PEER_1,
    "connectTime": _TEXT,
    "disableMP": {**_TRUTH, "default": False},
    "dualStackAddressFamily": {**_TRUTH, "default": False},
    "dynamicASN": {**_TEXT, "enum": ["internal", "external"]},
    "enableGracefulRestart": _TRUTH,
    "interface": _TEXT,
    "passwordSecret": _object({"name": _TEXT, "namespace": _TEXT}),
    "peerPort": _number(1, 16384, default=179),
    "vrf": _TEXT,
}
_BFD = _object(
    {
        "detectMultiplier": _number(2, 255),
        "echoInterval": _number(10, 60000),
        "echoMode": _TRUTH,
        "minimumTtl": _number(1, 254),
        "passiveMode": _TRUTH,
        "receiveInterval": _number(10, 60000),
        "transmitInterval": _number(10, 60000),
    }
)
_COMMUNITY = _object({"communities": _list(_object({"name": _TEXT, "value": _TEXT}))})
_OF_SERVICE = {"node": _TEXT, "serviceName": _TEXT, "serviceNamespace": _TEXT}
_STATUS_COLUMNS = {
    "Node": ".status.node",
    "Service Name": ".status.serviceName",
    "Service Namespace": ".status.serviceNamespace",
}
_PEER_COLUMNS = {
    "Address": ".spec.peerAddress",
    "ASN": ".spec.peerASN",
    "BFD Profile": ".spec.bfdProfile",
    "Multi Hops": ".spec.ebgpMultiHop",
}
_ADVERT_COLUMNS = {"IPAddressPools": ".spec.ipAddressPools", "IPAddressPool Selectors": ".spec.ipAddressPoolSelectors"}


def _version(
    name: str, spec: Schema, *, status: Schema | None = None, columns: dict[str, str] | None = None, stored: bool = True
) -> Schema:
    columns = columns or {}
    # ``kubectl get`` shows whatever it finds as text
    shown = [{"name": column, "jsonPath": path, "type": "string"} for column, path in columns.items()]
    schema = _object({"apiVersion": _TEXT, "kind": _TEXT, "metadata": _object(), "spec": spec, "status": status or _object()})
    found: Schema = {
        "name": name,
        "served": True,
        "storage": stored,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return {**found, "additionalPrinterColumns": shown} if shown else found


def _definition(kind: str, plural: str, *versions: Schema) -> Schema:
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{METALLB}", "labels": {"app.kubernetes.io/managed-by": "moyai"}},
        "spec": {"group": METALLB, "names": names, "scope": "Namespaced", "versions": list(versions)},
    }


def definitions() -> list[Schema]:
    """The namespace and the definitions, in the order in which they are applied."""
    pool_columns = {
        "Auto Assign": ".spec.autoAssign",
        "Avoid Buggy IPs": ".spec.avoidBuggyIPs",
        "Addresses": ".spec.addresses",
        "Available": ".status.availableIPv4",
        "State": ".status.conditions[0].reason",
    }
    l2_columns = {**_ADVERT_COLUMNS, "Interfaces": ".spec.interfaces"}
    l2_status = _object({**_OF_SERVICE, "interfaces": _list(_object({"name": _TEXT}))})
    bgp_status = _object({**_OF_SERVICE, "peers": _TEXTS})
    peers = (
        _version("v1beta1", _object(_PEER_1, "myASN", "peerASN", "peerAddress"), columns=_PEER_COLUMNS, stored=False),
        _version("v1beta2", _object(_PEER_2, "myASN"), columns=_PEER_COLUMNS),
    )
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"app.kubernetes.io/managed-by": "moyai"}},
        },
        _definition("IPAddressPool", "ipaddresspools", _version("v1beta1", _POOL, status=_POOL_STATUS, columns=pool_columns)),
        _definition("L2Advertisement", "l2advertisements", _version("v1beta1", _L2, columns=l2_columns)),
        _definition("BGPPeer", "bgppeers", *peers),
        _definition(
            "BGPAdvertisement",
            "bgpadvertisements",
            _version("v1beta1", _BGP, columns={**_ADVERT_COLUMNS, "Peers": ".spec.peers"}),
        ),
        _definition("BFDProfile", "bfdprofiles", _version("v1beta1", _BFD)),
        _definition("Community", "communities", _version("v1beta1", _COMMUNITY)),
        _definition(
            "ServiceL2Status", "servicel2statuses", _version("v1beta1", _object(), status=l2_status, columns=_STATUS_COLUMNS)
        ),
        _definition(
            "ServiceBGPStatus", "servicebgpstatuses", _version("v1beta1", _object(), status=bgp_status, columns=_STATUS_COLUMNS)
        ),
    ]


def controller_rules() -> list[Schema]:
    """Of the cloud controller manager, in the whole cluster."""
    read = ["list", "watch"]
    kinds = ["ipaddresspools", "l2advertisements", "bgpadvertisements"]
    return [
        {"apiGroups": [METALLB], "resources": kinds, "verbs": read},
        {"apiGroups": [METALLB], "resources": ["ipaddresspools/status"], "verbs": ["patch"]},
        {"apiGroups": [METALLB], "resources": ["servicel2statuses"], "verbs": ["delete"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": read},
        {"apiGroups": ["moyai.dev"], "resources": ["egressaddresses"], "verbs": ["get", *read, "patch"]},
        {"apiGroups": ["moyai.dev"], "resources": ["egressaddresses/status"], "verbs": ["patch"]},
    ]
