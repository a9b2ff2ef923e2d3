"""Makes documents of records: the tables, pictures and captions of RESULTS.md and the README."""
