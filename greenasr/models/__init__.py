"""One network per file; none knows that it will be quantized."""
