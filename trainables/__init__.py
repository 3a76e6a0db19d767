"""One pack of trials: frozen language model, memories, data and evaluation.

Nothing here knows of sweeps, stages or trackers. Importing this package imports nothing heavy.
"""
