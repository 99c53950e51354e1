"""Floor 1: this host's own disk. Content files, the clean cache, the journal. Knows no bucket."""
