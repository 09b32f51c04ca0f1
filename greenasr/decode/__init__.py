"""Language-model scores to words: n-grams, n-best lists, rescoring."""
