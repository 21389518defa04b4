"""A real cluster loses its machines and comes back from its backup: minutes, so `make test-restore` alone runs these tests."""
