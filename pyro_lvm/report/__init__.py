"""The report of a run, and that of several: one HTML page each, and what is said on it."""

from pyro_lvm.report.diagnosis import Diagnosis, Verdict, diagnose, diagnose_run
from pyro_lvm.report.number import Number
from pyro_lvm.report.side_by_side import Column, write_comparison
from pyro_lvm.report.writing import write_report

__all__ = [
    "Column",
    "Diagnosis",
    "Number",
    "Verdict",
    "diagnose",
    "diagnose_run",
    "write_comparison",
    "write_report",
]
