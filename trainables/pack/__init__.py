"""K trials in one forward pass: process cache, training, metric log, checkpoint, result."""
