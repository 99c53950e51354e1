"""Content: where the bytes of an inode are on this host, how missing ones are downloaded, what is synced and evicted."""
