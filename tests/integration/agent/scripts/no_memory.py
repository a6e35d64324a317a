"""A rank that cannot go on, and needs no torch to say so."""

raise MemoryError("asked for too much")
