"""The clean cache: files of versions that the bucket has too, their table, attributes and last listings."""
