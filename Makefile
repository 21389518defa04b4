# What a user and CI call. Everything else is `moyai`.
.PHONY: up check test test-host lint format setup

up: setup
	moyai up examples/quickstart

# Installs uv, moyai's own environment and the `moyai` command; needs root, Debian 12 or 13.
setup:
	@./scripts/setup

check: lint
	.venv/bin/pytest -q tests/unit

lint:
	.venv/bin/ruff check src tests
	.venv/bin/ruff format --check src tests
	.venv/bin/lint-imports --no-cache >/dev/null || .venv/bin/lint-imports --no-cache
	.venv/bin/pyright --warnings

format:
	.venv/bin/ruff check --fix src tests
	.venv/bin/ruff format src tests
