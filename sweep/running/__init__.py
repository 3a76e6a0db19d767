"""One run of a sweep: the ledger of what is done and next, and what executes the packs.

The ledger hands out packs and takes in what became of them. It is put together from parts that know less: `backlog`
(which trials are to be run: `known`, `jobs`, `job_records`, `stage_trials`, `sampled`, `choosing`, `other_sweeps`,
`pack_queue`), `under_way` (which packs run), `regrouping` (who leaves and joins them) and `stop_file`.
"""
