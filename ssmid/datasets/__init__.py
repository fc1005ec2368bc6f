"""Systems and data to try things on: bundled filters and language models, a simulated room, filter network and arm, and benchmark models.

``hyena_filters``, ``trained_model`` and ``sample_text`` read files of the package; how these were made stands in
:mod:`ssmid.datasets.filters` and :mod:`ssmid.datasets.language_models`. Everything else is computed from its definition, so that a test
needs no download.
"""

from ssmid.datasets.benchmark_models import beam, fom, heat
from ssmid.datasets.filters import drawn_filters, hyena_filters
from ssmid.datasets.language_models import sample_text, trained_filters, trained_model
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
    "sample_text",
    "trained_filters",
    "trained_model",
]
