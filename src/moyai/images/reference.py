"""Names of images, as Docker and Kubernetes read them: ``nginx`` is ``docker.io/library/nginx:latest``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moyai.core.errors import UsageError

_PATH = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DEFAULT_HOST = "docker.io"


@dataclass(frozen=True, order=True)
class ImageReference:
    """``host`` (``docker.io``), ``path`` (``library/nginx``) and ``tag`` (``latest``)."""

    host: str
    path: str
    tag: str

    def __str__(self) -> str:
        return f"{self.host}/{self.path}:{self.tag}"

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Raises UsageError if ``text`` is no image name, or names a digest (``@sha256:…``): nobody can choose a digest."""
        first, slash, rest = text.partition("/")
        # Docker's rule: the first part is a host when it looks like one
        if slash and ("." in first or ":" in first or first == "localhost"):
            host, name = first, rest
        else:
            host, name = _DEFAULT_HOST, text
        path, colon, tag = name.partition(":")
        tag = tag if colon else "latest"
        if host in (_DEFAULT_HOST, "index.docker.io"):
            host = _DEFAULT_HOST
            path = path if "/" in path else f"library/{path}"
        if not (_HOST.fullmatch(host) and _PATH.fullmatch(path) and _TAG.fullmatch(tag)) or len(path) > 255:
            raise UsageError(f"{text!r} is no name of an image", hint="as in `example.org/team/app:1.0`, in lower case")
        return cls(host, path, tag)
