"""Floor 0: errors, keys, ranges, records, states, settings and ports. Imports no other package of r2fs."""
