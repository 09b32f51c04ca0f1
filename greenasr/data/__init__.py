"""Corpus on disk to batches."""
