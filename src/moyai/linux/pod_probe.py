"""A program that runs in a pod and finds out what the pod reaches: other pods, Services, names, and packets of each size.

It travels as text into pods whose image has Python, whatever version of moyai is in it: the standard library alone. ``serve``
answers other pods' probes until it ends by itself; ``probe TARGETS`` tries all targets at the same time and prints JSON.

Packets of a given size travel over UDP with "do not fragment"; the answer has the same size, so both directions are tried.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Of TCP and of UDP.
PORT = 10801
#: Seconds: for one answer; for a Service whose address the nodes do not know yet; until a server ends by itself.
ANSWER, SERVICE, LIFE = 2.0, 6.0, 900.0
#: Tries of a packet that may be lost.
TRIES = 3
#: Bytes that IPv4 and UDP put before what is sent.
HEADERS = 28
_SMALLEST = 576
# linux/in.h
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO, _IP_PMTUDISC_PROBE = 10, 2, 3
_SIOCGIFMTU = 0x8921
_AT_ONCE = 64


def serve(name: str) -> None:
    """Answers with ``name`` on TCP, and with the same packet on UDP."""
    packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    packets.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
    packets.bind(("", PORT))
    listening = socket.create_server(("", PORT), backlog=128)
    threading.Thread(target=_echo, args=(packets,), daemon=True).start()
    threading.Thread(target=_greet, args=(listening, name), daemon=True).start()
    time.sleep(LIFE)


def _echo(packets: socket.socket) -> None:
    while True:
        with suppress(OSError):  # an answer that is too large for the way back is lost, and the other side says so
            data, sender = packets.recvfrom(65535)
            packets.sendto(data, sender)


def _greet(listening: socket.socket, name: str) -> None:
    while True:
        with suppress(OSError):
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(ANSWER)
                connection.sendall(name.encode())


def probe(targets: dict[str, Any]) -> dict[str, Any]:
    """``targets``: ``pods`` and ``services`` by the name of their node, as addresses; ``name``: to be looked up in the DNS.

    Each result is ``""`` for success, or a sentence.
    """
    mtu = own_mtu()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        pods = {node: pool.submit(connect, address, node) for node, address in targets["pods"].items()}
        services = {node: pool.submit(connect, one, node, seconds=SERVICE) for node, one in targets["services"].items()}
        sizes = {node: pool.submit(full_size, address, mtu) for node, address in targets["pods"].items()}
        names = pool.submit(look_up, targets["name"])
        return {
            "mtu": mtu,
            "pods": {node: one.result() for node, one in pods.items()},
            "services": {node: one.result() for node, one in services.items()},
            "sizes": {node: one.result() for node, one in sizes.items()},
            "names": names.result(),
        }


def connect(address: str, expected: str, *, seconds: float = ANSWER) -> str:
    """A TCP connection that is answered with ``expected``. Tried again for so many seconds, and once at least."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((address, PORT), ANSWER) as connection:
                said = connection.recv(256).decode(errors="replace")
        except OSError as error:
            if time.monotonic() >= deadline - 0.3:
                return _reason(error)
            time.sleep(0.3)
        else:
            return "" if said == expected else f"{said or 'nobody'} answered instead"


def own_mtu() -> int:
    """Of the link that Kubernetes gives a pod, in bytes; 0 where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, suppress(OSError):
        answer = fcntl.ioctl(asking.fileno(), _SIOCGIFMTU, struct.pack("16s16x", b"eth0"))
        return int(struct.unpack_from("=i", answer, 16)[0])
    return 0


def full_size(address: str, mtu: int) -> dict[str, Any]:
    """``passes``: the largest packet that comes back, in bytes, 0 for none. ``over``: ``""`` where the kernel refuses one byte
    more than ``mtu``, as it should, else what becomes of it."""
    if passes(address, mtu):
        largest = mtu
    elif not passes(address, _SMALLEST):
        largest = 0
    else:
        largest, above = _SMALLEST, mtu
        while above - largest > 1:
            middle = (largest + above) // 2
            largest, above = (middle, above) if passes(address, middle, tries=1) else (largest, middle)
    with _packets(address) as sending:
        try:
            sending.send(bytes(mtu + 1 - HEADERS))
            over = f"{mtu + 1} bytes were taken"
        except OSError as error:
            over = "" if error.errno == 90 else _reason(error)  # EMSGSIZE
    return {"passes": largest, "over": over}


def passes(address: str, size: int, *, tries: int = TRIES) -> bool:
    """Whether a packet of so many bytes comes back."""
    with _packets(address) as sending:
        sending.settimeout(ANSWER / TRIES)
        for _ in range(tries):
            mark = secrets.token_bytes(8)
            try:
                sending.send(mark + bytes(size - HEADERS - len(mark)))
                while True:
                    said = sending.recv(65535)
                    if said[:8] == mark:
                        return len(said) == size - HEADERS
            except OSError:
                continue
    return False


def _packets(address: str) -> socket.socket:
    sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # each size is sent: what the kernel has kept of the path may be from before
    sending.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
    sending.connect((address, PORT))
    return sending


def look_up(name: str) -> str:
    """Whether the pod's first name server has an address for ``name``, which is completed by the pod's search list."""
    server, domains = resolver(Path("/etc/resolv.conf").read_text())
    if not server:
        return "the pod has no name server"
    # NAMESPACE.svc.DOMAIN, svc.DOMAIN, DOMAIN, and what the machine searches
    domain = next((one for one in domains if one.startswith("svc.")), "svc.cluster.local")
    full = f"{name}.{domain}"
    number = secrets.token_bytes(2)
    question = b"".join(bytes((len(part),)) + part.encode() for part in full.split(".")) + b"\0" + struct.pack("!HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(ANSWER)
        asking.connect((server, 53))
        why = ""
        for _ in range(TRIES):
            try:
                asking.send(number + struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0) + question)
                said = asking.recv(4096)
            except OSError as error:
                why = f"name server {server}: {_reason(error)}"
                continue
            if said[:2] == number:
                code, answers = said[3] & 15, struct.unpack_from("!H", said, 6)[0]
                return "" if not code and answers else f"name server {server} knows no address of {full} (code {code})"
    return why or f"name server {server} gave no answer"


def resolver(text: str) -> tuple[str, list[str]]:
    """The first name server and the search list of a resolv.conf."""
    lines = [line.split() for line in text.splitlines()]
    servers = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    searched = [words[1:] for words in lines if words and words[0] == "search"]
    return (servers[0] if servers else ""), (searched[-1] if searched else [])


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    return (error.strerror or str(error)).lower()


def main(words: list[str]) -> None:
    if words[0] == "serve":
        serve(os.environ["NODE_NAME"])
    else:
        json.dump(probe(json.loads(words[1])), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
