"""Measurements of the whole: `python -m tests.bench`. How to read them: docs/reference/benchmarks.md."""
