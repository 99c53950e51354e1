"""Inodes: records of files and directories, the table of names and numbers, and stat."""
