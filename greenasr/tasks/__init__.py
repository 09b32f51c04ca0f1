"""Network, loss, data and scoring together."""
