"""The journal: the SQLite database of what the bucket lacks, and the state directory that it lies in."""
