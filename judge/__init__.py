"""Suites and clients of others against a running Head AI: `make judge`."""
