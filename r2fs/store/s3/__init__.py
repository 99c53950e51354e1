"""Buckets behind an S3 API."""
