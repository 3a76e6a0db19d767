"""What all commands share: options, completion, and what a person sees while they wait."""
