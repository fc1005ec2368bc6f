"""Systems and data to try things on: bundled filters, a simulated room, filter network and arm, and three benchmark models.

``hyena_filters`` reads a file of the package, whose origin stands in :mod:`ssmid.datasets.filters`. Everything else is computed from its
definition, so that a test needs no download.
"""

from ssmid.datasets.benchmark_models import beam, fom, heat
from ssmid.datasets.filters import drawn_filters, hyena_filters
from ssmid.datasets.measured import band_pass, flexible_arm
from ssmid.datasets.rooms import SPEED_OF_SOUND, room

__all__ = [
    "SPEED_OF_SOUND",
    "band_pass",
    "beam",
    "drawn_filters",
    "flexible_arm",
    "fom",
    "heat",
    "hyena_filters",
    "room",
]
