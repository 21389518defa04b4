"""The cloud's MariaDB from the host: made, spoken to over its socket (root's alone), copied while it runs."""

from __future__ import annotations

from pathlib import Path

from moyai.linux.process import run
from moyai.localcloud.layout import CloudPaths
from moyai.localcloud.services.infra import DATABASES


def install(paths: CloudPaths) -> None:
    """Make an empty data folder in which only root, by the socket, is somebody."""
    run(
        [
            "mariadb-install-db",
            f"--defaults-file={paths.conf / 'mariadb.cnf'}",
            "--user=root",
            f"--datadir={paths.state / 'mysql'}",
            "--skip-test-db",
            "--auth-root-authentication-method=socket",
            "--auth-root-socket-user=root",
        ],
        timeout=120,
    )


def sql(paths: CloudPaths, text: str) -> str:
    """Run statements (they go by standard input: they may hold passwords); returns rows, tab-separated, without a head."""
    argv = ["mariadb", "--no-defaults", "--user=root", f"--socket={paths.mysql_socket}", "--batch", "--skip-column-names"]
    return run(argv, stdin=text, timeout=120).stdout


def create(paths: CloudPaths) -> None:
    sql(paths, "".join(f"CREATE DATABASE IF NOT EXISTS {name};\n" for name in DATABASES))


def copy_schema(paths: CloudPaths, source: str, *, target: str) -> None:
    """Give ``target`` the tables and rows of ``source`` (both small)."""
    dump = run(["mariadb-dump", "--no-defaults", "--user=root", f"--socket={paths.mysql_socket}", source], timeout=120).stdout
    sql(paths, f"USE {target};\nSET unique_checks=0, foreign_key_checks=0;\n{dump}")


def relaxed(paths: CloudPaths, *, on: bool) -> None:
    """While a new cloud is set up nothing is worth an fsync; afterwards every commit is."""
    sql(paths, f"SET GLOBAL innodb_flush_log_at_trx_commit={0 if on else 1};")


def recover(folder: Path, scratch: Path) -> None:
    """Bring a copied data folder to rest: crash recovery and a clean shutdown, without clients."""
    argv = [
        "mariadbd",
        "--no-defaults",
        "--bootstrap",
        "--user=root",
        f"--datadir={folder}",
        f"--tmpdir={scratch}",
        f"--socket={scratch / 'recover.sock'}",
        "--skip-networking",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=48M",
        "--innodb-flush-method=nosync",
    ]
    run(argv, stdin="SELECT 1;\n", timeout=120)
