"""Files: open, read, write, flush and release of handles, and the session between first writer and last close."""
