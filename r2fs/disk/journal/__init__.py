"""The journal: the SQLite database of changes that the bucket lacks, and its state directory."""
