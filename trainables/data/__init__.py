"""Documents, claims and prompts: everything a trial reads, as plain values. No torch, no pandas."""
