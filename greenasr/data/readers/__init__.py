"""Readers of corpora, one format a file: each lists a corpus's utterances as rows."""
