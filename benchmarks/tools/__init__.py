"""Instruments: timing, counts of compiled programs, the optimizers and trees that are measured."""
