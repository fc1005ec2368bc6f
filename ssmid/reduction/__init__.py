"""A system to a smaller system, with a certificate."""
