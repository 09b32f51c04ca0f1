"""Tensor and array mathematics without state."""
