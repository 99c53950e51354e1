"""Doctor: checks of this host, of a bucket and of what lies on the disk, for `r2fs doctor`."""
