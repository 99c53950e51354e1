"""Recovery: journal and open handles of an earlier daemon become inodes again."""
