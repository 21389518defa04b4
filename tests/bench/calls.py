"""Counts the requests that one client sent to a local cloud's APIs, by their access logs.

Always holds: only whole lines written after ``Counter`` was made are counted; what the APIs ask of each other is not.
"""

from __future__ import annotations

import re
from collections import Counter as Tally
from pathlib import Path

#: Log → the API's name. Those served by waitress write their lines through ``localcloud.launch_wsgi``.
LOGS = {
    "keystone": "Keystone",
    "nova-api": "Nova",
    "neutron-server": "Neutron",
    "octavia-api": "Octavia",
    "glance-api": "Glance",
    "cinder-api": "Cinder",
}
_LINE = re.compile(r'(?<![\d.])(\d+\.\d+\.\d+\.\d+) (?:- - \[[^]]*\] )?"(GET|POST|PUT|PATCH|DELETE) ([^\s"]+)')


class Counter:
    """Begins to count when it is made. ``client``: the address that the requests come from."""

    def __init__(self, logs: Path, client: str) -> None:
        self._client = client
        self._files = {logs / f"{log}.log": api for log, api in LOGS.items()}
        self._begin = {file: file.stat().st_size if file.exists() else 0 for file in self._files}

    def requests(self) -> list[tuple[str, str, str]]:
        """All requests so far, as (API, method, path)."""
        found: list[tuple[str, str, str]] = []
        for file, api in self._files.items():
            if not file.exists():
                continue
            with file.open("rb") as log:
                log.seek(self._begin[file])
                text = log.read().decode(errors="replace")
            for line in text.splitlines():
                match = _LINE.search(line)
                if match and match[1] == self._client:
                    found.append((api, match[2], match[3].partition("?")[0]))
        return found

    def by_api(self) -> dict[str, int]:
        """API → number of requests."""
        return dict(Tally(api for api, _, _ in self.requests()))
