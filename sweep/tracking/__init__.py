"""MLflow: what a run looks like there, the live feed, and publishing from records."""
