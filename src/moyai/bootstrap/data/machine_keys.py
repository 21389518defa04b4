"""Brings the keys and certificates of one machine to what they should be. Run as root in a pod that sees the machine's folders
of keys and its processes. Needs what moyai's image has: cryptography and PyYAML.

One line of JSON comes on standard input, the order:

files       path → content; a file that differs is replaced
renews      leaf certificates are signed again until all static pods have the generation; otherwise only those of another
            authority are
now         the time (ISO 8601) from which on new certificates count
chain       certificates behind the API server's own, for clients that trust only an authority that was replaced
flags       static pod → flag → value
pods        static pods that read what changes; those whose manifest does not have the
generation  yet are made again
kubelet     a client certificate with its key, for a kubelet whose certificate is of another authority; empty: for none

One line of JSON is the answer: ``changed``, the names of the files that were replaced; ``kubelet``, the name of the file with
its certificate, which has the time of the order that brought it.

Always holds: each file is replaced by one rename; the order may come again at any time, and a second time it changes nothing. A
kubelet that has got another certificate is ended last, and systemd starts it again: its pods go on. The connection that brings
the order may end with it.
"""

import base64
import datetime
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

KUBERNETES = Path("etc/kubernetes")
KUBELET = Path("var/lib/kubelet/pki")
CURRENT = "kubelet-client-current.pem"
AUTHORITIES = ("ca", "front-proxy-ca", "etcd/ca")
CONFIGS = ("admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf")
#: Files beside authorities that no program signs.
NOT_SIGNED = ("signing-ca", "cross-ca")
ANNOTATION = "moyai.dev/keys"
#: Stands while the kubelet has not been started with its files of today.
MARKER = KUBERNETES / ".moyai-restart-kubelet"
LEEWAY, YEAR = datetime.timedelta(minutes=10), datetime.timedelta(days=365)

Order = dict[str, Any]


class Machine:
    """``root``: where its folders are. ``end``: ends its kubelet."""

    def __init__(self, root: Path, order: Order, *, end: Callable[[], None]) -> None:
        self.root, self.order, self.end = root, order, end
        self.now = datetime.datetime.fromisoformat(order["now"])
        self.changed: list[str] = []
        self.renews = False

    def work(self) -> None:
        # what was signed a moment before a kill is signed once more: its begin does not tell it from one of before
        self.renews = self.order["renews"] and any(True for _ in self.pods())
        for name, content in self.order["files"].items():
            self.write(self.root / name, content.encode())
        for path in self.leaves():
            self.sign_file(path)
        for name in CONFIGS:
            self.sign_config(self.root / KUBERNETES / name)
        self.kubelet_files()
        self.manifests()

    def answer(self) -> dict[str, Any]:
        current = self.root / KUBELET / CURRENT
        return {"changed": self.changed, "kubelet": current.resolve().name if current.exists() else ""}

    # ---- files

    def write(self, path: Path, content: bytes) -> bool:
        """Whether the file had another content. It keeps its mode; a new one is root's alone."""
        there = path.exists()
        if there and path.read_bytes() == content:
            return False
        mode = path.stat().st_mode & 0o777 if there else 0o644 if path.suffix == ".crt" else 0o600
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # kubelet takes no file whose name begins with a dot for a manifest
        beside = path.with_name(f".{path.name}.moyai")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
        sync(path.parent)
        self.changed.append(str(path.relative_to(self.root)))
        return True

    # ---- certificates that the authorities of this machine sign

    def leaves(self) -> Iterator[Path]:
        folder = self.root / KUBERNETES / "pki"
        for path in sorted(folder.rglob("*.crt")):
            name = str(path.relative_to(folder).with_suffix(""))
            if name not in (*AUTHORITIES, *NOT_SIGNED) and path.with_suffix(".key").exists():
                yield path

    def authority(self, path: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
        """That signs the certificate in this file. None on a machine without its key."""
        folder = self.root / KUBERNETES / "pki"
        name = "ca"
        if path.parent.name == "etcd" or path.stem == "apiserver-etcd-client":
            name = "etcd/ca"
        elif path.stem == "front-proxy-client":
            name = "front-proxy-ca"
        key = folder / f"{name}.key"
        if not key.exists():
            return None
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        # the first certificate of the file signs
        return x509.load_pem_x509_certificates((folder / f"{name}.crt").read_bytes())[0], private

    def stale(self, leaf: x509.Certificate, authority: x509.Certificate) -> bool:
        """Whether the certificate is to be signed again."""
        if not issued(leaf, authority):
            return True
        return self.renews

    def sign_file(self, path: Path) -> None:
        found = self.authority(path)
        if found is None:
            return
        chain = self.order["chain"].encode() if path.stem == "apiserver" else b""
        leaf = x509.load_pem_x509_certificates(path.read_bytes())[0]
        key = path.with_suffix(".key").read_bytes()
        private = serialization.load_pem_private_key(key, None)
        if self.stale(leaf, found[0]) or pem_of(private.public_key()) != pem_of(leaf.public_key()):
            private, leaf = self.signed(leaf, found)
            # a machine that is switched off between the two comes here again, for the pair does not match
            self.write(path.with_suffix(".key"), pem_of(private))
        self.write(path, leaf.public_bytes(serialization.Encoding.PEM) + chain)

    def sign_config(self, path: Path) -> None:
        found = self.authority(path)
        if found is None or not path.exists():
            return
        config = yaml.safe_load(path.read_bytes())
        trusted = base64.b64encode((self.root / KUBERNETES / "pki/ca.crt").read_bytes()).decode()
        for one in config["clusters"]:
            one["cluster"]["certificate-authority-data"] = trusted
        for one in config["users"]:
            user = one["user"]
            if data := user.get("client-certificate-data"):
                leaf = x509.load_pem_x509_certificates(base64.b64decode(data))[0]
                if self.stale(leaf, found[0]):
                    private, leaf = self.signed(leaf, found)
                    user["client-certificate-data"] = base64.b64encode(leaf.public_bytes(serialization.Encoding.PEM)).decode()
                    user["client-key-data"] = base64.b64encode(pem_of(private)).decode()
        self.write_yaml(path, config)

    def signed(
        self, leaf: x509.Certificate, found: tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
    ) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        """A certificate for the same as ``leaf``, with a key of its own. ``found``: the authority, and its key."""
        authority, private = found
        own = ec.generate_private_key(ec.SECP256R1())
        ends = min(self.now + YEAR, authority.not_valid_after_utc)
        builder = x509.CertificateBuilder().subject_name(leaf.subject).issuer_name(authority.subject)
        builder = builder.public_key(own.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(self.now - LEEWAY).not_valid_after(ends)
        for one in leaf.extensions:
            if not isinstance(one.value, x509.AuthorityKeyIdentifier | x509.SubjectKeyIdentifier):
                builder = builder.add_extension(one.value, critical=one.critical)
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key())
        builder = builder.add_extension(known, critical=False)
        return own, builder.sign(private, hashes.SHA256())

    def write_yaml(self, path: Path, content: Any) -> bool:
        if yaml.safe_load(path.read_bytes()) == content:
            return False
        return self.write(path, yaml.safe_dump(content, sort_keys=False).encode())

    # ---- the kubelet

    def kubelet_files(self) -> None:
        config, folder = self.root / KUBERNETES / "kubelet.conf", self.root / KUBELET
        trusted = self.root / KUBERNETES / "pki/ca.crt"
        if not config.exists() or not trusted.exists():
            return
        content = yaml.safe_load(config.read_bytes())
        for one in content["clusters"]:
            one["cluster"]["certificate-authority-data"] = base64.b64encode(trusted.read_bytes()).decode()
        current, given = folder / CURRENT, self.order["kubelet"].encode()
        other = bool(given) and current.exists() and not same_authority(current.read_bytes(), given)
        if other:
            # before the files: whoever is killed between them and the kubelet's end comes here again
            self.write(self.root / MARKER, b"")
            name = f"kubelet-client-{self.now:%Y-%m-%d-%H-%M-%S}.pem"
            self.write(folder / name, given)
            beside = folder / ".current.moyai"
            beside.unlink(missing_ok=True)
            beside.symlink_to(f"/{KUBELET}/{name}" if self.root == Path("/") else name)
            beside.replace(current)
            sync(folder)
        # for its next start: a kubelet that runs trusts the API by the certificate that the old authority has signed
        self.write_yaml(config, content)

    def end_kubelet(self) -> None:
        marker = self.root / MARKER
        if marker.exists():
            self.end()
            marker.unlink()

    # ---- static pods

    def pods(self) -> Iterator[tuple[Path, Any]]:
        """Manifests of those that do not have the generation yet."""
        for path in sorted((self.root / KUBERNETES / "manifests").glob("[!.]*.yaml")):
            pod = yaml.safe_load(path.read_bytes())
            known = pod["metadata"].get("annotations", {}).get(ANNOTATION)
            if path.stem in self.order["pods"] and known != self.order["generation"]:
                yield path, pod

    def manifests(self) -> None:
        """The kubelet makes a pod again whose manifest has changed."""
        for path, pod in self.pods():
            pod["metadata"].setdefault("annotations", {})[ANNOTATION] = self.order["generation"]
            for flag, value in self.order["flags"].get(path.stem, {}).items():
                command = pod["spec"]["containers"][0]["command"]
                command[:] = [*(word for word in command if not word.startswith(f"--{flag}=")), f"--{flag}={value}"]
            self.write_yaml(path, pod)


def sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def issued(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether this very authority has signed the certificate."""
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def same_authority(one: bytes, other: bytes) -> bool:
    """Whether both certificates are signed with the same authority's key."""
    found: list[bytes | None] = []
    for content in (one, other):
        first = x509.load_pem_x509_certificates(content)[0]
        try:
            known = first.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        except x509.ExtensionNotFound:
            return False
        found.append(known)
    return found[0] == found[1]


def pem_of(key: Any) -> bytes:
    if hasattr(key, "private_bytes"):
        return key.private_bytes(  # type: ignore[no-any-return]
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, info)  # type: ignore[no-any-return]


def end_kubelet(processes: Path = Path("/proc")) -> None:
    for folder in processes.glob("[0-9]*"):
        try:
            if (folder / "comm").read_text().strip() == "kubelet":
                os.kill(int(folder.name), signal.SIGTERM)
        except OSError:
            continue  # it has ended


def main() -> None:
    machine = Machine(Path(os.environ.get("MOYAI_ROOT", "/")), json.loads(sys.stdin.readline()), end=end_kubelet)
    machine.work()
    print(json.dumps(machine.answer()), flush=True)
    machine.end_kubelet()


if __name__ == "__main__":
    os.umask(0o077)
    main()
