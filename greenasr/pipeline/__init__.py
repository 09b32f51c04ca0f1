"""Stages as values in a run folder, each resumable."""
