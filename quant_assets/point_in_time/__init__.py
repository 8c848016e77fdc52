"""Proof that no value depends on the future, for any table of the graph: cut, recompute, compare."""
