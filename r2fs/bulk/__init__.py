"""Bulk work on a bucket without a mount: many objects, each confirmed, and a report of what failed."""
