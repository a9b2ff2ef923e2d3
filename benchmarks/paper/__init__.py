"""The experiments of the LAWN paper, arXiv 2108.05839, repeated."""
