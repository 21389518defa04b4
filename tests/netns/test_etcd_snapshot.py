"""The program that reads a snapshot for a backup, beside real etcds."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import Any

from tests.netns.test_etcd_member import PROGRAM, Make, ask, etcd, first, make

__all__ = ["etcd", "make"]

SNAPSHOT = PROGRAM.with_name("etcd_snapshot.py")


def snapshot(address: str) -> subprocess.CompletedProcess[bytes]:
    environment = {"MOYAI_ETCD": f"http://{address}:2379", "PATH": os.environ["PATH"]}
    return subprocess.run([sys.executable, "-I", str(SNAPSHOT)], env=environment, capture_output=True, timeout=60, check=False)


def parts(printed: bytes) -> tuple[dict[str, Any], bytes]:
    line, _, content = printed.partition(b"\n")
    return json.loads(line), content


def test_a_snapshot_is_whole_and_has_all_that_was_written_before(make: Make) -> None:
    zero = first(make)
    for _ in range(40):
        # together more than one piece of etcd's
        ask(zero.address, "/v3/kv/put", key="YQ==", value="YmJi" * 2000)
    written = ask(zero.address, "/v3/kv/put", key="YQ==", value="bGFzdCBvZiBhbGw=")["header"]["revision"]
    done = snapshot(zero.address)
    assert done.returncode == 0, done.stderr
    facts, content = parts(done.stdout)
    assert facts == {"size": len(content), "revision": int(written), "version": "3.7.3"}
    assert hashlib.sha256(content[:-32]).digest() == content[-32:]
    assert b"last of all" in content


def test_a_member_without_a_majority_gives_none(make: Make) -> None:
    """What it has may be old: the others may have gone on without it."""
    zero, one = first(make), make(1)
    one.joined()
    one.die()
    done = snapshot(zero.address)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no snapshot of etcd: " in done.stderr


def test_an_etcd_that_does_not_run_is_one_line(make: Make) -> None:
    done = snapshot("127.0.77.9")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
