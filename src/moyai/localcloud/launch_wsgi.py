"""Serves one WSGI application by waitress: ``python -m moyai.localcloud.launch_wsgi ADDRESS PORT MODULE:FACTORY [ARGUMENT…]``.

Runs in OpenStack's environment. Keystone and Octavia read ``sys.argv`` when they are imported, so it is set before.
"""

import importlib
import sys


def main() -> None:
    address, port, target = sys.argv[1:4]
    module, _, factory = target.partition(":")
    sys.argv = [module, *sys.argv[4:]]
    make = getattr(importlib.import_module(module), factory)
    # Octavia's factory wants the arguments handed over; the others take none
    application = make(argv=sys.argv) if factory == "setup_app" else make()
    waitress = importlib.import_module("waitress")
    waitress.serve(application, host=address, port=int(port), threads=8, ident=None, clear_untrusted_proxy_headers=True)


if __name__ == "__main__":
    main()
