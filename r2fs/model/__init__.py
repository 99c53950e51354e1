"""Floor 0: errors, keys, ranges, records, states, settings and ports. Imports nothing of r2fs above it."""
