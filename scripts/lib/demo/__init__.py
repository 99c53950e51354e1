"""The demo: audio programs that know nothing of R2 work on a bucket, and every byte is compared."""
