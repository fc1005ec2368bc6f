"""What can be asked of a system and what it can be turned into: one module a subject, public names in ``ssmid``."""
