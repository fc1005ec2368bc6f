"""Training from a configuration to a table row: exactly resumable, on one device or on several."""

from ssmid.experiments.training.configuration import Configuration
from ssmid.experiments.training.loop import train

__all__ = ["Configuration", "train"]
