"""Holds programs that measure a cost, each of which writes one kind of record."""
