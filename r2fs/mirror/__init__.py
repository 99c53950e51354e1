"""A plain directory and a bucket's prefix, kept in step without FUSE."""
