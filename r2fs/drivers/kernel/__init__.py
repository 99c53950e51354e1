"""Driver of /dev/fuse: the wire protocol, its handlers, passthrough."""
