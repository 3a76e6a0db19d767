"""Entry sets formed and analysed, nothing trained."""
