"""A control plane's place among the others: its member of etcd, and its part in the API's virtual address. Standard library and
PyYAML; run as root on the machine itself. PLACE says which machine this is.

found    exits 0 where another control plane has an etcd, so that there is a cluster to join.
join     makes this machine's etcd a learner of that cluster, and writes kubeadm's configuration for it to OWN.
promote  makes the learner a voter once it has all that the others have.
peers    writes keepalived's configuration for all machines that are members now.
refresh  the same, and keepalived reads it where it has changed.

Always holds: a machine without data never starts an etcd whose address is still another member's; that member is removed first,
and only where a majority of the others is healthy; a learner that does not come is removed again.
Sources: etcd's JSON gateway (/v3/cluster/member), kubeadm v1beta4, keepalived.conf(5).
"""

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

ROOT = Path(os.environ.get("MOYAI_ROOT", "/"))
PLACE = ROOT / "etc/moyai/place.json"
CONFIG = ROOT / "etc/moyai/kubeadm.yaml"
OWN = ROOT / "etc/moyai/own.yaml"
KEEPALIVED = ROOT / "etc/moyai/keepalived.conf"
DATA = ROOT / "var/lib/etcd/member"
PKI = ROOT / "etc/kubernetes/pki"
SCHEME = os.environ.get("MOYAI_ETCD_SCHEME", "https")
CLIENT, PEER = 2379, 2380
PROMOTION = 180.0
PAUSE = 0.5

Member = dict[str, Any]


def place() -> dict[str, Any]:
    """``name``, ``address``; ``peers``: addresses of the other control planes; ``virtual``, ``priority``: for keepalived."""
    return cast("dict[str, Any]", json.loads(PLACE.read_text()))


# ---- what is to be done, from what etcd says


def started(member: Member) -> bool:
    """A member has a name once its etcd has run."""
    return bool(member.get("name"))


def learner(member: Member) -> bool:
    return bool(member.get("isLearner"))


def next_step(members: Sequence[Member], url: str, *, healthy: Iterable[str]) -> tuple[str, str]:
    """What a machine without data does to become the member at ``url``: (verb, id of a member or reason to wait).

    ``healthy``: ids of the members that answer. ``remove``: an earlier machine's member is in the way. ``add``: nothing is in
    the way. ``ready``: the member is there and waits for its etcd. ``wait``: a change now could cost etcd its majority.
    """
    mine = next((one for one in members if url in one.get("peerURLs", ())), None)
    if mine is not None and not started(mine):
        return "ready", str(mine["ID"])
    if mine is not None and learner(mine):
        return "remove", str(mine["ID"])
    if mine is not None:
        stay = [one for one in members if one is not mine and not learner(one)]
        well = [one for one in stay if str(one["ID"]) in set(healthy)]
        if len(well) >= len(stay) // 2 + 1:
            return "remove", str(mine["ID"])
        return "wait", f"{len(well)} of the {len(stay)} other members are healthy: no majority"
    if any(map(learner, members)):
        return "wait", "another machine is joining"
    return "add", ""


def initial_cluster(members: Iterable[Member], *, name: str, url: str) -> str:
    """etcd's flag: all members with this machine's own among them."""
    others = [(one["name"], one["peerURLs"][0]) for one in members if url not in one["peerURLs"] and started(one)]
    return ",".join(f"{one}={peer}" for one, peer in [*others, (name, url)])


def keepalived_conf(here: dict[str, Any], peers: Iterable[str], *, interface: str) -> str:
    """Version 3, as version 2 would round the interval to a second. The address never moves back: each move costs a moment."""
    check = "/usr/bin/curl -fs --max-time 2 --cacert /etc/kubernetes/pki/ca.crt -o /dev/null https://127.0.0.1:6443/readyz"
    others = "\n".join(f"    {peer}" for peer in sorted(peers, key=lambda one: [int(part) for part in one.split(".")]))
    return f"""global_defs {{
  router_id {here["name"]}
  vrrp_version 3
  enable_script_security
  script_user root
  vrrp_garp_master_delay 1
  vrrp_garp_master_repeat 3
  vrrp_garp_master_refresh 10
}}
vrrp_script api {{
  script "{check}"
  interval 1
  timeout 3
  fall 2
  rise 1
  init_fail
}}
vrrp_instance api {{
  state BACKUP
  nopreempt
  interface {interface}
  virtual_router_id 77
  priority {here["priority"]}
  advert_int 0.25
  unicast_src_ip {here["address"]}
  unicast_peer {{
{others}
  }}
  virtual_ipaddress {{
    {here["virtual"]}/32 dev {interface}
  }}
  track_script {{
    api
  }}
}}
"""


# ---- etcd


class EtcdRefused(Exception):
    """etcd's own reason."""


def call(address: str, path: str, **body: Any) -> dict[str, Any]:
    """etcd's answer. Raises EtcdRefused with etcd's reason, OSError where there is no answer or only a part of one."""
    context = None
    if SCHEME == "https":
        context = ssl.create_default_context(cafile=PKI / "etcd/ca.crt")
        context.load_cert_chain(PKI / "apiserver-etcd-client.crt", PKI / "apiserver-etcd-client.key")
    data = json.dumps(body).encode() if not path.startswith("/health") else None
    host = address if ":" in address else f"{address}:{CLIENT}"
    request = urllib.request.Request(f"{SCHEME}://{host}{path}", data)
    handlers: list[Any] = [urllib.request.ProxyHandler({})]
    if context:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=5) as answer:
            return cast("dict[str, Any]", json.loads(answer.read()))
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with contextlib.suppress(ValueError):
            text = str(json.loads(text).get("message", text))
        raise EtcdRefused(text) from None
    except http.client.HTTPException as error:  # the connection ended in the middle of an answer
        raise OSError(f"half an answer: {error!r}") from error


def members_at(addresses: Iterable[str]) -> tuple[str, list[Member]]:
    """The first address that answers for a majority, and the members that it names. OSError where none does."""
    why: Exception = OSError("no address")
    for address in addresses:
        try:
            return address, call(address, "/v3/cluster/member/list", linearizable=True)["members"]
        except (OSError, EtcdRefused, ValueError) as error:
            why = error
    raise OSError(f"no etcd answers: {why}")


def answering(members: Iterable[Member]) -> set[str]:
    """Ids of the members that are healthy by their own word."""
    well: set[str] = set()
    for one in members:
        for url in one.get("clientURLs", ())[:1]:
            try:
                if call(url.partition("://")[2], "/health").get("health") == "true":
                    well.add(str(one["ID"]))
            except (OSError, EtcdRefused, ValueError):
                continue
    return well


# ---- commands


def found() -> int:
    for address in place()["peers"]:
        try:
            socket.create_connection((address, CLIENT), timeout=1).close()
        except OSError:
            continue
        return 0
    return 1


def join() -> int:
    here = place()
    url = f"{SCHEME}://{here['address']}:{PEER}"
    said = ""
    while True:
        try:
            address, members = members_at(here["peers"])
            verb, what = next_step(members, url, healthy=answering(members))
            if verb == "ready" or DATA.exists():
                break
            if verb == "remove":
                call(address, "/v3/cluster/member/remove", ID=what)
                say(f"removed the member of the machine that was here before ({what})")
            elif verb == "add":
                call(address, "/v3/cluster/member/add", peerURLs=[url], isLearner=True)
                say("etcd has this machine as a learner")
        except (OSError, EtcdRefused) as error:
            verb, what = "wait", str(error)
        if verb == "wait":
            if what != said:
                say(f"waiting for etcd: {what}")
            said = what
            time.sleep(PAUSE)
    arguments = {
        "initial-cluster": initial_cluster(members, name=here["name"], url=url),
        "initial-cluster-state": "existing",
    }
    documents = [one for one in yaml.safe_load_all(CONFIG.read_bytes()) if one]
    for one in documents:
        if one["kind"] == "ClusterConfiguration":
            local = one.setdefault("etcd", {}).setdefault("local", {})
            local["extraArgs"] = [{"name": name, "value": value} for name, value in arguments.items()]
    write(OWN, yaml.safe_dump_all(documents, sort_keys=False))
    return 0


def promote() -> int:
    here = place()
    url = f"{SCHEME}://{here['address']}:{PEER}"
    end = time.monotonic() + PROMOTION
    why = ""
    while time.monotonic() < end:
        try:
            address, members = members_at(here["peers"])
            mine = next((one for one in members if url in one["peerURLs"]), None)
            if mine is None:
                say("promote FAILED: etcd does not know this machine")
                return 1
            if not learner(mine):
                say("etcd has this machine as a voter")
                return 0
            call(address, "/v3/cluster/member/promote", ID=str(mine["ID"]))
        except (OSError, EtcdRefused) as error:
            why = str(error)
            time.sleep(PAUSE)
    address, members = members_at(here["peers"])
    for one in members:
        if url in one["peerURLs"] and learner(one):
            call(address, "/v3/cluster/member/remove", ID=str(one["ID"]))
    say(f"promote FAILED: {why}")
    return 1


def peers() -> int:
    here = place()
    wanted = set(here["peers"])
    try:
        members = members_at(["127.0.0.1"])[1]
        wanted |= {url.partition("://")[2].rpartition(":")[0] for one in members for url in one["peerURLs"]}
    except OSError:
        pass  # this machine has no etcd yet
    text = keepalived_conf(here, wanted - {here["address"]}, interface=interface_of(here["address"]))
    if not KEEPALIVED.exists() or KEEPALIVED.read_text() != text:
        write(KEEPALIVED, text)
    return 0


def refresh() -> int:
    before = KEEPALIVED.read_text() if KEEPALIVED.exists() else ""
    peers()
    if KEEPALIVED.read_text() != before:
        subprocess.run(["systemctl", "reload-or-restart", "--no-block", "moyai-vip.service"], check=True)
    return 0


def interface_of(address: str) -> str:
    listed = json.loads(subprocess.run(["ip", "-j", "-4", "address"], stdout=subprocess.PIPE, check=True).stdout)
    for one in listed:
        if any(own.get("local") == address for own in one.get("addr_info", ())):
            return str(one["ifname"])
    sys.exit(f"moyai: no interface has the address {address} yet")


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)


def say(text: str) -> None:
    print(f"moyai: {text}", flush=True)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit({"found": found, "join": join, "promote": promote, "peers": peers, "refresh": refresh}[sys.argv[1]]())
