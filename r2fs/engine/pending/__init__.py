"""Pending: changes of each inode that the bucket lacks, and deletes not yet carried out; journal first, then memory."""
