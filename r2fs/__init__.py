"""r2fs: a Cloudflare R2 (or any S3) bucket as a local directory."""

__version__ = "0.1.0"
