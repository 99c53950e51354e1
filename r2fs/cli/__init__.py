"""The command line: parses, asks the daemon over its socket, prints."""
