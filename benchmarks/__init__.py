"""Benchmarks: ratios measured in one run, printed as tables. Never part of the tests."""
