"""Files in and out: ``read`` measured data of any kind, ``save`` and ``load`` models bit for bit."""

from ssmid.io.distilled import load
from ssmid.io.models import metadata, save
from ssmid.io.reading import read
from ssmid.io.records import read_record

__all__ = ["load", "metadata", "read", "read_record", "save"]
