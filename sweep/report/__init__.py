"""From records to the study's tables, figures and statistics: `python -m sweep.report STORAGE[/NAME]`."""
