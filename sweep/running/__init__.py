"""One run of a sweep: the ledger of what is done and next, and what executes the packs."""
