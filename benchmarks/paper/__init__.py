"""Repeats the experiments of the LAWN paper, arXiv 2108.05839."""
