"""The report of a run, and that of several: one HTML page each."""

from pyro_lvm.report.number import Number
from pyro_lvm.report.side_by_side import Column, write_comparison
from pyro_lvm.report.writing import write_report

__all__ = ["Column", "Number", "write_comparison", "write_report"]
