"""The key that opens a control plane's sealed files, on its own machine. Standard library only; run as root.

take   moves the key from the server's metadata to KEPT, which root alone can read. cloud-init has copied the metadata to files
       that every local user, and every pod that mounts them, can read: the key is overwritten in all of them, on each boot.
       Exits 0 when the key is in KEPT, or has served already; 1 when no source has it yet.
open   verifies the sealed file and unpacks it into /. Exits 1 with one line when the file was changed or the key is another.
drop   deletes KEPT, once the cluster runs, and overwrites the copies that cloud-init has written since.
"""

import hashlib
import hmac
import http.client
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

NAME = "moyai.key"
ROOT = Path(os.environ.get("MOYAI_ROOT", "/"))
KEPT = ROOT / "var/lib/moyai/unsealing-key"
SERVED = ROOT / "var/lib/moyai/cluster"
SEALED = ROOT / "etc/moyai/sealed"
#: Where cloud-init keeps copies of the metadata: JSON, and a pickle of the same strings.
COPIES = (ROOT / "run/cloud-init", ROOT / "var/lib/cloud")
URL = "http://169.254.169.254/openstack/latest/meta_data.json"
#: Passwords that a cloud makes up for the machine's accounts stand beside the key.
ALSO = ("admin_pass",)
#: Shorter values are no secrets, and would be found by accident.
SHORTEST = 8


def values(data: Any, name: str) -> Iterator[str]:
    """All strings that stand under `name`, at any depth."""
    parts: Collection[Any] = ()
    if isinstance(data, dict):
        table = cast("dict[str, Any]", data)
        if isinstance(table.get(name), str) and table[name]:
            yield table[name]
        parts = table.values()
    elif isinstance(data, list):
        parts = cast("list[Any]", data)
    for part in parts:
        yield from values(part, name)


def copies() -> Iterator[Path]:
    """All files of cloud-init's, which may come and go meanwhile."""
    for top in COPIES:
        for folder, _, names in os.walk(top):
            for path in (Path(folder, name) for name in names):
                if path.is_file() and not path.is_symlink():
                    yield path


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def from_service() -> Any:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(URL, timeout=3) as answer:
            return parsed(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None


def take() -> int:
    found = [data for path in copies() if path.suffix == ".json" and (data := parsed(read(path))) is not None]
    keys = [key for data in found for key in values(data, NAME) if set(key) != {"x"}]
    kept = read(KEPT).decode()
    if not kept and not SERVED.exists():
        kept = next(iter(keys), "") or next(values(from_service(), NAME), "")
        if kept:
            keep(kept)
    secrets = {*keys, *(value for data in found for name in ALSO for value in values(data, name)), kept} - {""}
    for path in copies():
        overwrite(path, [secret.encode() for secret in secrets if len(secret) >= SHORTEST])
    return 0 if kept or SERVED.exists() else 1


def keep(key: str) -> None:
    KEPT.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    beside = KEPT.with_name(f"{KEPT.name}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(key)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(KEPT)


def overwrite(path: Path, secrets: Collection[bytes]) -> None:
    """In place and with the same length, so that a pickle stays one, and the file keeps its owner and mode."""
    content = before = read(path)
    for secret in secrets:
        content = content.replace(secret, b"x" * len(secret))
    if content != before:
        with path.open("r+b") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())


def unseal() -> int:
    key = read(KEPT)
    tag, _, packed = read(SEALED).partition(b"\n")
    wanted = hmac.new(hashlib.sha256(b"moyai tag " + key).digest(), packed, hashlib.sha256).hexdigest().encode()
    if not hmac.compare_digest(tag, wanted):
        print("moyai: the sealed files were changed, or were sealed with another key")
        return 1
    command = ["openssl", "enc", "-d", "-aes-256-cbc", "-pbkdf2", "-iter", "100000", "-md", "sha256", "-a", "-A"]
    environment = {**os.environ, "MOYAI_KEY": key.decode()}
    opened = subprocess.run(
        [*command, "-pass", "env:MOYAI_KEY"], input=packed, stdout=subprocess.PIPE, check=True, env=environment
    )
    subprocess.run(["tar", "-xz", "-C", ROOT], input=opened.stdout, check=True)
    return 0


def drop() -> int:
    # cloud-init ends its first boot by writing what it had in memory, the key among it
    if kept := read(KEPT):
        for path in copies():
            overwrite(path, [kept])
    KEPT.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit({"take": take, "open": unseal, "drop": drop}[sys.argv[1]]())
