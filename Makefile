# What a user and CI call. Everything else is `moyai`.
.PHONY: up check test test-host test-image test-long test-upgrade test-restore conformance bench peers chaos simulate lint style types unit format setup

up: setup
	moyai up examples/quickstart

# Installs uv, moyai's own environment and the `moyai` command; needs root, Debian 12 or 13.
setup:
	@./scripts/setup

# Two minutes: style, types, layers, unit tests; types and tests beside each other, as each keeps one core busy.
check:
	@$(MAKE) --no-print-directory -j2 --output-sync=target style types unit

# All tests, on a cloud of their own; on a fresh machine everything is fetched and built first. Needs root.
test: setup
	.venv/bin/moyai prepare --tests
	$(MAKE) check
	.venv/bin/pytest -q -n 2 -m exhaustive tests/unit
	.venv/bin/python -m tests
	$(MAKE) test-host RELEASES=12

# Stock Debian 12 and 13 in virtual machines under software emulation: machines with Kubernetes on systemd and cgroup v2.
# RELEASES=12 for one of them. Six to eight minutes each on an idle machine; needs root, for the images.
RELEASES ?= 12 13
test-host: setup
	@./scripts/test-packages
	MOYAI_TEST_RELEASES="$(RELEASES)" nice -n 5 .venv/bin/pytest -q -s tests/host/test_host.py

# The node image as a disk: a control plane by BIOS from a config drive, and a start by UEFI with Secure Boot, in virtual machines
# under software emulation. Ten minutes on an idle machine; needs root, for the image.
test-image: setup
	@./scripts/test-packages
	nice -n 5 .venv/bin/pytest -q -s -n 0 tests/host/test_node_disk.py

# The end-to-end tests of minutes that `make test` leaves out, on a cloud of its own. About a quarter of an hour; needs root.
test-long: setup
	.venv/bin/pytest -q -s -m long --durations=10 tests/e2e

# All machines of a real cluster replaced while clients go on, and another version of Kubernetes for it, on a cloud of its own. A
# quarter of an hour; needs root. MOYAI_TEST_PAIR=minor: two minor versions, which are built first.
test-upgrade: setup
	.venv/bin/pytest -q -s tests/upgrade

# A cluster of one control plane and a worker is backed up, loses its machines, and comes back from the file. Three minutes; needs
# root.
test-restore: setup
	.venv/bin/pytest -q -s tests/restore

# Kubernetes' own tests on a cluster of their own, in parts; goes on where the last run stopped. Several hours for all parts on two
# cores; CONFORMANCE="--part quick --minutes 15". Needs root.
conformance: setup
	.venv/bin/python -m tests.conformance $(CONFORMANCE)

# Measures cloud, `up`, Services and `down` against their floors, on a cloud of its own; BENCH="--only up --output json". Needs root.
bench: setup
	.venv/bin/python -m tests.bench $(BENCH)

# moyai's cloud controller manager against OpenStack's on one cluster, and gophercloud's acceptance tests on the local cloud;
# PEERS="--only acceptance --keep". Fails if a test fails that is not expected to. Needs root.
peers: setup
	.venv/bin/python -m tests.peers $(PEERS)

# `up` killed at random moments, two commands at once, leaders killed under load, the cloud gone for ten minutes; on a cloud of its
# own; CHAOS="--only kills --seed 7 --output json". About an hour and a half; needs root.
chaos: setup
	.venv/bin/python -m tests.chaos $(CHAOS)

# Clusters and Services by the hundred, all in memory: what they cost, and whether calls per node or Service grow. Two minutes.
simulate:
	.venv/bin/python -m tests.simulate

lint: style types

style:
	.venv/bin/ruff check src tests
	.venv/bin/ruff format --check src tests
	.venv/bin/lint-imports --no-cache >/dev/null || .venv/bin/lint-imports --no-cache

types:
	.venv/bin/pyright --warnings

unit:
	.venv/bin/pytest -q -n 2 --dist loadgroup -m "not exhaustive" tests/unit

format:
	.venv/bin/ruff check --fix src tests
	.venv/bin/ruff format src tests
