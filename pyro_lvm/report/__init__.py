"""The report of a run: one HTML page."""

from pyro_lvm.report.number import Number
from pyro_lvm.report.writing import write_report

__all__ = ["Number", "write_report"]
