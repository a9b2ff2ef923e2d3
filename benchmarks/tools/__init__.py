"""Holds the instruments: clocks, counts of compiled programs, the optimizers and trees measured."""
