"""What tests share: real S3 servers on loopback, and servers that fail on script."""
