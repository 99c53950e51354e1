"""The benchmark: r2fs, its peers and the local disk, at the same work on the same server, in one run."""
