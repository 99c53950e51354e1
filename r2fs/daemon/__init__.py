"""The daemon of one mount: composition, control socket, systemd, signals."""
