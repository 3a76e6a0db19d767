"""CounterFact prompts, completed by sampling."""
