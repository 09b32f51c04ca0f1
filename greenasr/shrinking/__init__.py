"""The search for the smallest model that loses no words: any model, any scorer, one run folder."""
