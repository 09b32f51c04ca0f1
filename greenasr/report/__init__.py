"""What a person sees of a finished run: tables, plots, pages."""
