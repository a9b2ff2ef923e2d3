"""Tests, in folders as the source."""
