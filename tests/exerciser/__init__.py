"""A file system exerciser: random operations on a few files, compared with a model in memory."""
