"""Figures of the code's structure: static ones by ast and tokenize, traced ones by sys.setprofile."""
