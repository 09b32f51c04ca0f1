"""Low-bit products in C++: the compiled extension, and its slow obvious twin in NumPy."""
