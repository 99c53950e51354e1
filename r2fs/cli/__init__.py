"""The command line: parses, sends requests to daemons over their sockets, prints."""
