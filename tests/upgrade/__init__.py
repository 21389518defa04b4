"""Machines of a real cluster are replaced while clients go on: minutes, so `make test-upgrade` alone runs these tests."""
