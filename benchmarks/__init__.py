"""Measurements: what LAWN costs, and the records of what was run."""
