"""Serves one WSGI application by waitress: ``python -m moyai.localcloud.launch_wsgi ADDRESS PORT MODULE:FACTORY [ARGUMENT…]``.

Runs in OpenStack's environment. Keystone and Octavia read ``sys.argv`` when they are imported, so it is set before.
"""

import importlib
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def logged(application: Application, say: Callable[[str], None] = _print) -> Application:
    """The application, with a line on standard error for each request, as the other APIs write: who, what, status, seconds."""

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        began = time.monotonic()
        client, method, path = environ.get("REMOTE_ADDR", "-"), environ.get("REQUEST_METHOD"), environ.get("PATH_INFO")

        def start(status: str, *rest: Any) -> Any:
            say(f'{client} "{method} {environ.get("SCRIPT_NAME", "")}{path}" {status[:3]} {time.monotonic() - began:.3f}')
            return start_response(status, *rest)

        return application(environ, start)

    return call


def main() -> None:
    address, port, target = sys.argv[1:4]
    module, _, factory = target.partition(":")
    sys.argv = [module, *sys.argv[4:]]
    make = getattr(importlib.import_module(module), factory)
    # Octavia's factory wants the arguments handed over; the others take none
    application = make(argv=sys.argv) if factory == "setup_app" else make()
    waitress = importlib.import_module("waitress")
    waitress.serve(logged(application), host=address, port=int(port), threads=8, ident=None, clear_untrusted_proxy_headers=True)


if __name__ == "__main__":
    main()
