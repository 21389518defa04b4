"""The program of the machine that a restored cluster begins with: it takes etcd's data from an administrator alone, and forgets
the machines that are gone. A real etcd starts with the data; etcdutl has made them from a real snapshot.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import os
import ssl
import subprocess
import sys
import tarfile
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from moyai.bootstrap import pki
from moyai.core.clock import SystemClock
from moyai.core.errors import Retriable, UsageError
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.kube.quick import KubeApi
from moyai.lifecycle.etcd_data import BUMP, EtcdData, make_etcd_data
from moyai.toolchain import Toolchain
from tests.netns.lb_world import until
from tests.netns.test_etcd_member import ADDRESSES, PROGRAM, Machine, Make, ask, etcd, first, make
from tests.netns.test_etcd_snapshot import parts, snapshot

__all__ = ["etcd", "make"]

RESTORE = PROGRAM.with_name("restore_etcd.py")
#: Of this process alone.
PORT = 16_000 + os.getpid() % 4_000


@pytest.fixture(scope="session")
def etcdutl() -> Path:
    return Toolchain(default_paths(), Reporter()).ensure(["etcdutl"])["etcdutl"].files["etcdutl"]


def put(address: str, key: str, *, value: str = "x") -> int:
    coded = {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value.encode()).decode()}
    return int(ask(address, "/v3/kv/put", **coded)["header"]["revision"])


def keys(address: str) -> list[str]:
    found = ask(address, "/v3/kv/range", key="AA==", range_end="AA==", keys_only=True).get("kvs", [])
    return sorted(base64.b64decode(one["key"]).decode() for one in found)


class Restored:
    """The machine that is restored, and whoever asks it. ``keep``: nodes that live."""

    def __init__(self, root: Path, *, keep: tuple[str, ...] = ()) -> None:
        self.root = root
        self.authorities = machine_pki(root / "etc/kubernetes/pki")
        (root / "etc/moyai").mkdir(parents=True, exist_ok=True)
        (root / "etc/moyai/restore.json").write_text(json.dumps({"keep": list(keep)}))
        (root / "var/lib").mkdir(parents=True, exist_ok=True)
        server = f"https://127.0.0.1:{PORT}"
        self.api = KubeApi(pki.admin_kubeconfig(self.authorities, name="t", server=server, clock=SystemClock()))
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self, command: str) -> subprocess.Popen[bytes]:
        environment = {
            "MOYAI_ROOT": str(self.root),
            "MOYAI_PORT": str(PORT),
            "MOYAI_ETCD": f"http://{ADDRESSES[0]}:2379",
            "PATH": os.environ["PATH"],
        }
        process = subprocess.Popen([sys.executable, "-I", str(RESTORE), command], env=environment)
        self._processes.append(process)
        return process

    def send(self, data: EtcdData, *, sha256: str = "") -> tuple[int, str]:
        with data.file.open("rb") as content:
            headers = {"X-Sha256": sha256 or data.sha256}
            return self.api.send("/moyai/etcd", content, size=data.size, headers=headers, timeout=30)

    def waits(self) -> bool:
        """The machine calls itself ready for keepalived and load balancers alone, which show no certificate."""
        return without_certificate("GET", "/readyz") == 200

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def machine_pki(folder: Path) -> pki.Pki:
    """The authorities, and the API server's certificate, which kubeadm makes on a machine."""
    authorities = pki.ensure(folder, SystemClock())
    private = ec.generate_private_key(ec.SECP256R1())
    authority = x509.load_pem_x509_certificate(authorities.ca)
    signer = serialization.load_pem_private_key(authorities.files["ca.key"], None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    now = SystemClock().now()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kube-apiserver")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(authority.subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("kubernetes")]), critical=False)
        .sign(signer, pki.hashes.SHA256())
    )
    (folder / "apiserver.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "apiserver.key").write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return authorities


@pytest.fixture
def restored(tmp_path: Path) -> Generator[Restored]:
    machine = Restored(tmp_path / "restored", keep=("quickstart-workers-1",))
    yield machine
    machine.end()


def packed(folder: Path, files: dict[str, bytes]) -> EtcdData:
    file = folder / "etcd.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return EtcdData(file, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())


def test_an_etcd_starts_with_what_the_snapshot_has_and_without_the_machines_that_are_gone(
    make: Make, etcdutl: Path, restored: Restored, tmp_path: Path
) -> None:
    old = first(make)
    nodes = ["quickstart-control-plane-0", "quickstart-workers-0", "quickstart-workers-1"]
    for node in nodes:
        for prefix in ("/registry/minions/", "/registry/leases/kube-node-lease/", "/registry/csinodes/"):
            put(old.address, prefix + node)
    put(old.address, "/registry/minionsx/other")
    before = put(old.address, "/registry/configmaps/default/kept", value="words")
    done = snapshot(old.address)
    file = tmp_path / "etcd.snapshot"
    file.write_bytes(parts(done.stdout)[1])
    put(old.address, "/registry/configmaps/default/late")
    old.die()

    data = make_etcd_data(file, tmp_path / "etcd.tar.gz", etcdutl=etcdutl, name="plane-0", address=ADDRESSES[0])
    receiving = restored.begin("receive")
    until("the machine waits", restored.waits, within=30)
    assert restored.send(data) == (200, '{"said": "etcd has its data"}')
    assert receiving.wait(timeout=30) == 0
    assert (restored.root / "var/lib/moyai/founded").exists()
    assert restored.begin("receive").wait(timeout=30) == 0, "a machine that has data takes no others"

    forgetting = restored.begin("forget")
    # as kubeadm starts it: the flags of a member that has data do not count
    new = Machine(tmp_path / "new", 0, etcd=old._etcd)  # pyright: ignore[reportPrivateUsage]
    new.root = restored.root
    new.start("--initial-cluster", f"plane-0=http://{ADDRESSES[0]}:2380")
    try:
        assert forgetting.wait(timeout=60) == 0
        assert keys(new.address) == [
            "/registry/configmaps/default/kept",
            "/registry/csinodes/quickstart-workers-1",
            "/registry/leases/kube-node-lease/quickstart-workers-1",
            "/registry/minions/quickstart-workers-1",
            "/registry/minionsx/other",
        ]
        assert put(new.address, "/registry/minions/quickstart-workers-0") > before + BUMP, "watchers see no second history"
        assert restored.begin("forget").wait(timeout=30) == 0
        assert "/registry/minions/quickstart-workers-0" in keys(new.address), "that is a machine of today"
    finally:
        new.die()


def test_only_an_administrator_may_send_data_and_only_whole_ones_count(restored: Restored, tmp_path: Path) -> None:
    receiving = restored.begin("receive")
    until("the machine waits", restored.waits, within=30)
    good = packed(tmp_path, {"member/snap/db": b"x"})
    assert restored.send(good, sha256="0" * 64) == (400, '{"said": "it has another hash"}')
    for files, why in (
        ({"../../escaped": b"x"}, "it has '../../escaped'"),
        ({"other/file": b"x"}, "it has no data of etcd"),
    ):
        bad = packed(tmp_path / "..", files)
        assert restored.send(bad) == (400, json.dumps({"said": why}))
    noise = tmp_path / "noise"
    noise.write_bytes(b"noise")
    status, said = restored.send(EtcdData(noise, 5, hashlib.sha256(b"noise").hexdigest()))
    assert (status, "it is no archive" in said) == (400, True)
    assert without_certificate("GET", "/moyai/etcd") == 503
    assert without_certificate("PUT", "/moyai/etcd") == 403
    assert without_certificate("GET", "/readyz") == 200
    assert not restored.api.ready()
    assert not (restored.root / "var/lib/etcd/member").exists()
    assert receiving.poll() is None
    good = packed(tmp_path, {"member/snap/db": b"x"})
    assert restored.send(good)[0] == 200
    assert receiving.wait(timeout=30) == 0
    assert (restored.root / "var/lib/etcd/member/snap/db").read_bytes() == b"x"


def test_a_sender_that_breaks_off_leaves_nothing(restored: Restored, tmp_path: Path) -> None:
    receiving = restored.begin("receive")
    until("the machine waits", restored.waits, within=30)
    good = packed(tmp_path, {"member/snap/db": os.urandom(100_000)})

    class Half(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 50_000:
                raise OSError("gone")
            return super().read(20_000)

    half: BinaryIO = Half(good.file.read_bytes())
    with pytest.raises(Retriable):
        restored.api.send("/moyai/etcd", half, size=good.size, headers={"X-Sha256": good.sha256}, timeout=10)
    until("its turn is over", lambda: restored.send(good)[0] == 200, within=30)
    assert receiving.wait(timeout=30) == 0


def test_a_snapshot_that_etcd_does_not_take_is_refused(etcdutl: Path, tmp_path: Path) -> None:
    bad = tmp_path / "etcd.snapshot"
    bad.write_bytes(b"x" * 4096 + hashlib.sha256(b"x" * 4096).digest())
    with pytest.raises(UsageError, match="etcd does not take the snapshot: etcdutl: "):
        make_etcd_data(bad, tmp_path / "etcd.tar.gz", etcdutl=etcdutl, name="a", address="10.8.0.10")
    assert [one.name for one in tmp_path.iterdir()] == ["etcd.snapshot"]


def without_certificate(method: str, path: str) -> int:
    """The status that the machine answers with; 0 while nobody listens."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", PORT, context=context, timeout=10)
    try:
        connection.request(method, path, body=b"" if method == "PUT" else None)
        return connection.getresponse().status
    except ConnectionRefusedError:
        return 0
    finally:
        connection.close()
