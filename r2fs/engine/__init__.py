"""Floor 2: the file system itself, by inode number and handle. Knows no FUSE, no S3, no SQL."""
