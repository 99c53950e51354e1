"""Pending: what the bucket still lacks of each inode, and deletes that are not carried out; journal first, then memory."""
