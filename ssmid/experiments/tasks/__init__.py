"""Tasks that sequence models are trained on, generated from a seed as they were published, or read from a folder."""
