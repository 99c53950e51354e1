"""Power cuts: the block writes of a file system image, recorded, and prefixes of them replayed."""
