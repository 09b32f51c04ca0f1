"""Grids, costs, allocation and the one training loop."""
