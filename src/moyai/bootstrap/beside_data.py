"""User data of a machine beside the cluster: its files, its packages, and what its role makes of it.

Pure. One cloud-boothook script, as for nodes; it works in each image with cloud-init and systemd. Always holds: there is no
secret in it. The machine has no part in the cluster: where its image is the node image, its kubelet does not run.
"""

from __future__ import annotations

import base64
import json
import shlex
from importlib.resources import files

from moyai.bootstrap.user_data import UserDataTooLarge, encoded_size, tar_of
from moyai.images import references
from moyai.plan.machines_beside import PlannedMachine, inside_ranges, led_networks, router_commands
from moyai.spec.model import Cluster

_FOLDER = "usr/local/lib/moyai"
_UNITS = "etc/systemd/system"
#: Where `moyai router` reads FRR's commands.
ROUTER_CONF = "etc/moyai/router.json"


def machine_data(cluster: Cluster, machine: PlannedMachine, *, limit: int) -> str:
    """``limit``: bytes of user data that the cloud takes, counted after encoding."""
    spec, entry = cluster.spec, machine.entry
    content = {one.path.lstrip("/"): one.content.encode() for one in entry.files}
    modes = {one.path.lstrip("/"): int(one.mode, 8) for one in entry.files}
    units: list[str] = []
    if steps := _steps(cluster, machine):
        content[f"{_FOLDER}/machine"] = ("#!/bin/sh\nset -e\n" + "".join(f"{step}\n" for step in steps)).encode()
        units.append("moyai-machine.service")
    if entry.packages:
        content[f"{_FOLDER}/packages"] = _data("machine-packages", PACKAGES=shlex.join(entry.packages))
        units.append("moyai-packages.service")
    if commands := router_commands(spec, entry):
        content[ROUTER_CONF] = json.dumps(commands, indent=1).encode()
        units.append("moyai-router.service")
    for unit in units:
        content[f"{_UNITS}/{unit}"] = _data(unit, IMAGE=references.MOYAI)
    packed = base64.encodebytes(tar_of(content, modes=modes)).decode()
    wants = f"/{_UNITS}/multi-user.target.wants"
    enable = f"for unit in {' '.join(units)}; do ln -sfn /{_UNITS}/$unit {wants}/$unit; done\n" if units else ""
    text = (
        "#cloud-boothook\n#!/bin/sh\n"
        f"# moyai: cluster {cluster.name}, machine {machine.name}\n"
        "set -e\nif [ ! -e /var/lib/moyai/unpacked ]; then\n"
        "base64 -d <<'END' | tar -xz -C /\n" + packed + "END\n"
        # of the node image
        "systemctl disable --now kubelet.service >/dev/null 2>&1 || true\n"
        f"mkdir -p /var/lib/moyai {wants}\n{enable}"
        "touch /var/lib/moyai/unpacked\nsystemctl daemon-reload\nfi\n"
        + (f"systemctl start --no-block {' '.join(units)}\n" if units else "")
    )
    if (size := encoded_size(text)) > limit:
        raise UserDataTooLarge(machine.name, size, limit=limit)
    return text


def _steps(cluster: Cluster, machine: PlannedMachine) -> list[str]:
    """Commands at each start."""
    found: list[str] = []
    if machine.default_by:
        found.append(f"ip route replace default via {machine.default_by}")
    if machine.transit:
        found += [
            "sysctl -q -w net.ipv4.ip_forward=1",
            # connections are spread over several next hops, not only addresses
            "sysctl -q -w net.ipv4.fib_multipath_hash_policy=1",
        ]
        if led := led_networks(cluster.spec, machine.entry):
            found.append(f"nft -f - <<'END'\n{_masquerade(cluster, list(map(str, led)))}END")
    return found


def _masquerade(cluster: Cluster, led: list[str]) -> str:
    """The cloud's router knows no way back to networks that a machine leads out of."""
    inside = ", ".join(map(str, inside_ranges(cluster.spec)))
    return (
        "table ip moyai-machine\ndelete table ip moyai-machine\ntable ip moyai-machine {\n"
        "  chain postrouting {\n    type nat hook postrouting priority srcnat; policy accept;\n"
        f"    ip saddr {{ {', '.join(led)} }} ip daddr != {{ {inside} }} counter masquerade\n  }}\n}}\n"
    )


def _data(name: str, **values: str) -> bytes:
    text = (files("moyai.bootstrap") / "data" / name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.encode()
