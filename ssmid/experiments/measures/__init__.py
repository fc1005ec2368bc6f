"""What is measured of trained language models: their filters, bits, continuations, and what part of a filter they use."""
