"""The page of `r2fs ui`: its HTTP server on loopback, the data it shows, and what its buttons do."""
