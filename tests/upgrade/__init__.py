"""Machines of a real cluster are replaced while clients go on. Takes minutes, so `make test-upgrade` runs it, and no other target."""
