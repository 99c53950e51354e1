"""Buckets in a local directory, for development and tests."""
