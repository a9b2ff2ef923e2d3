"""From records to documents: the tables, pictures and captions of RESULTS.md and the READMEs."""
