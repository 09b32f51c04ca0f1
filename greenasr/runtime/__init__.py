"""The packed file and what runs from it."""
