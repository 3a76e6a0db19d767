"""What a trained memory is worth: FEVER claims judged, CounterFact prompts completed."""
