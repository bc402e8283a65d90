"""The frozen part, computed once: record what enters a boundary, keep it, replay it, and check that it is true."""
