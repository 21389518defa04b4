"""Renews the certificates of a control plane once less than a third of their life is left. Run as root, twice a day, by
moyai-certificates.timer. Needs what cloud-init needs (Python, PyYAML), openssl and kubeadm.

kubeadm renews all certificates that it has made; the authorities stay. A program that read an old certificate goes on with it.
Therefore the static pods are recreated: each manifest gets an annotation with the time, in one rename, and kubelet replaces the
pod. A manifest is never missing. Killed at any moment, the next run finishes: MARKER stands until all manifests are written.
"""

import base64
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(os.environ.get("MOYAI_ROOT", "/"))
KUBERNETES = ROOT / "etc/kubernetes"
MARKER = ROOT / "var/lib/moyai/renewing-certificates"
#: The bootstrap has ended: before, the certificates are new and the manifests are kubeadm's to write.
DONE = ROOT / "var/lib/moyai/done"
AUTHORITIES = ("ca.crt", "front-proxy-ca.crt", "etcd/ca.crt", "signing-ca.crt", "cross-ca.crt")
#: Behind the API server's own certificate, for clients that trust only an authority that was replaced.
CHAIN = "cross-ca.crt"
#: kubelet renews its own.
CONFIGS = ("admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf")
ANNOTATION = "moyai.dev/certificates-renewed"
SHARE = 1 / 3
#: The longest life that counts: some versions of kubeadm let a renewed certificate begin when its authority began.
YEAR = 365 * 86400


def certificates() -> Iterator[tuple[Path, bytes]]:
    """File and content of each certificate that kubeadm renews."""
    folder = KUBERNETES / "pki"
    for path in folder.rglob("*.crt"):
        if str(path.relative_to(folder)) not in AUTHORITIES:
            yield path, path.read_bytes()
    for path in (KUBERNETES / name for name in CONFIGS):
        if path.exists():
            for user in yaml.safe_load(path.read_bytes())["users"]:
                if data := user["user"].get("client-certificate-data"):
                    yield path, base64.b64decode(data)


def life(certificate: bytes) -> tuple[float, float]:
    """Begin and end, in seconds since 1970."""
    command = ["openssl", "x509", "-noout", "-startdate", "-enddate"]
    answer = subprocess.run(command, input=certificate, stdout=subprocess.PIPE, check=True).stdout.decode()
    dates = dict(line.split("=", 1) for line in answer.splitlines())
    return ssl.cert_time_to_seconds(dates["notBefore"]), ssl.cert_time_to_seconds(dates["notAfter"])


def due() -> list[Path]:
    """The files whose certificates have less than a third of their life left."""
    found: list[Path] = []
    for path, content in certificates():
        begins, ends = life(content)
        if ends - time.time() < min(ends - begins, YEAR) * SHARE:
            found.append(path)
    return found


def write(path: Path, text: str) -> None:
    """Whole or not at all, with the mode that the file has, 0600 for a new file."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    # kubelet takes no file whose name begins with a dot for a manifest
    beside = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def restart(moment: str) -> None:
    """Have kubelet make all static pods again."""
    for path in sorted((KUBERNETES / "manifests").iterdir()):
        if path.suffix == ".yaml" and not path.name.startswith("."):
            pod = yaml.safe_load(path.read_bytes())
            annotations = pod["metadata"].setdefault("annotations", {})
            if annotations.get(ANNOTATION) != moment:
                annotations[ANNOTATION] = moment
                write(path, yaml.safe_dump(pod, sort_keys=False))


def show_chain() -> None:
    """kubeadm writes the API server's certificate alone."""
    served, chain = KUBERNETES / "pki/apiserver.crt", KUBERNETES / "pki" / CHAIN
    if chain.exists() and served.read_text().count("BEGIN CERTIFICATE") == 1:
        write(served, served.read_text() + chain.read_text())


def renew() -> None:
    """Renew and restart; the marker keeps the moment, so that a run after an interruption restarts nothing twice."""
    if not MARKER.exists():
        write(MARKER, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    root = [] if Path("/") == ROOT else ["--rootfs", str(ROOT)]
    subprocess.run(["kubeadm", "certs", "renew", "all", *root], check=True)
    if old := due():
        # where an authority's key is missing kubeadm says so and succeeds; a restart would change nothing
        sys.exit(f"moyai: kubeadm has not renewed {', '.join(map(str, old))}")
    show_chain()
    restart(MARKER.read_text())
    MARKER.unlink()


def main() -> None:
    if not DONE.exists():
        return
    wanted = due()
    if sys.argv[1:] == ["check"]:
        for path in wanted:
            print(path)
        return
    if wanted or MARKER.exists():
        print(f"moyai: renewing the control plane's certificates, {len(wanted)} of them end soon", flush=True)
        renew()
        print("moyai: certificates renewed, static pods restart")


os.umask(0o077)
main()
