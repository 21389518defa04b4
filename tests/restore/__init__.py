"""A real cluster loses all its machines and is restored: minutes, so `make test-restore` alone runs these tests."""
