"""Official release files: whether their host answers, and fetching one with its pinned checksum.

Each host is asked once per run, all hosts at the same time and in the background. If no host answers, only the few seconds of
the time limit are lost. A file without the pinned checksum is never unpacked.
"""

from __future__ import annotations

import hashlib
import http.client
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from moyai import __version__
from moyai.core.errors import MoyaiError, Retriable
from moyai.core.progress import Progress
from moyai.toolchain.pins import Pin, Release

#: How long a host may take to answer, in seconds; after that it counts as out of reach.
PROBE_SECONDS = 3.0
#: How long a download may stand still, in seconds.
STALL_SECONDS = 30.0

_CHUNK = 1 << 20


class ChecksumMismatch(MoyaiError):
    """A fetched file is not what was pinned."""


class Hosts:
    """Which release hosts answer. ``ask(url)`` returns whether the file can be reached; it is called once per host."""

    def __init__(self, ask: Callable[[str], bool] | None = None, *, patience: float = PROBE_SECONDS + 0.5) -> None:
        self._ask = ask or answers
        self._patience = patience
        self._lock = threading.Lock()
        self._asked: dict[str, threading.Event] = {}
        self._answers: dict[str, bool] = {}

    def start(self, urls: Iterable[str]) -> None:
        """Ask the hosts of these addresses, without waiting."""
        for url in urls:
            host = urlsplit(url).netloc
            with self._lock:
                if host in self._asked:
                    continue
                self._asked[host] = threading.Event()
            # daemon threads: a name server that never answers must not keep moyai from ending
            threading.Thread(target=self._find_out, args=(host, url), daemon=True, name=f"ask-{host}").start()

    def answer(self, url: str) -> bool:
        """Whether the host of this address answers (waits for the answer, within the time limit)."""
        self.start([url])
        host = urlsplit(url).netloc
        self._asked[host].wait(self._patience)
        with self._lock:
            # decided once: a late answer must not contradict the answer that other callers got
            return self._answers.setdefault(host, False)

    def _find_out(self, host: str, url: str) -> None:
        try:
            answered = self._ask(url)
        except Exception:  # the reason does not matter: the component is built instead
            answered = False
        with self._lock:
            self._answers.setdefault(host, answered)
        self._asked[host].set()


def answers(url: str) -> bool:
    """Whether a file can be had there: one HEAD request."""
    try:
        with urllib.request.urlopen(_request(url, "HEAD"), timeout=PROBE_SECONDS) as response:
            return response.status == 200
    except (OSError, http.client.HTTPException, ValueError):
        return False


def fetch(pin: Pin, release: Release, *, target: Path, step: Progress) -> str:
    """Fetch the release file, check it, put the pinned programs into ``target``; returns where they came from.

    Raises ChecksumMismatch, Retriable when the host stops answering, MoyaiError when a program is not in the archive.
    """
    archive = target / "release"
    digest = hashlib.sha256()
    step.progress("fetching the release file")
    try:
        with (
            urllib.request.urlopen(_request(release.url, "GET"), timeout=STALL_SECONDS) as response,
            archive.open("wb") as file,
        ):
            total = int(response.headers.get("Content-Length") or 0)
            done = 0
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                step.progress(f"fetching, {done / 1e6:.0f} MB", done / total if total else None)
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise Retriable(f"{pin.name} cannot be fetched from {urlsplit(release.url).netloc}: {error}") from error
    if digest.hexdigest() != release.sha256:
        raise ChecksumMismatch(
            f"{pin.name} {pin.version}: the file at {release.url} is not what was pinned",
            hint=f"expected {release.sha256}, got {digest.hexdigest()}",
        )
    step.progress("unpacking")
    unpack(pin, release, archive=archive, target=target)
    archive.unlink()
    return f"release file from {urlsplit(release.url).netloc}"


def unpack(pin: Pin, release: Release, *, archive: Path, target: Path) -> None:
    """The pinned programs out of the (compressed) tar ``archive``, by their exact names and nothing else."""
    wanted = {f"{release.folder}/{name}".lstrip("/"): name for name in pin.files}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = wanted.get(member.name.removeprefix("./"))
            source = tar.extractfile(member) if name and member.isreg() else None
            if name and source:
                with (target / name).open("wb") as file:
                    while chunk := source.read(_CHUNK):
                        file.write(chunk)
                del wanted[member.name.removeprefix("./")]
            if not wanted:
                return
    raise MoyaiError(f"{pin.name} {pin.version}: not in the release file: {', '.join(sorted(wanted.values()))}")


def _request(url: str, method: str) -> urllib.request.Request:
    return urllib.request.Request(url, method=method, headers={"User-Agent": f"moyai/{__version__}"})
