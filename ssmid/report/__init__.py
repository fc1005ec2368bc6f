"""What the commands say: tables, sentences and figures, shared by the terminal and JSON."""

from ssmid.report.certificate import Certificate, certificate_report, certify
from ssmid.report.conversion import conversion
from ssmid.report.folder import fit_into
from ssmid.report.inspection import inspection
from ssmid.report.progress import progress
from ssmid.report.tables import Report, Table

__all__ = ["Certificate", "Report", "Table", "certificate_report", "certify", "conversion", "fit_into", "inspection", "progress"]
