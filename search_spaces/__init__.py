"""What to try: one module per experiment of the study, each with one `Space` named `space`."""
