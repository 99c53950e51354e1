"""Driver on libfuse 2 or 3: operations by path, translated to verbs."""
