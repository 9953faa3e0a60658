"""The report: one HTML file to look at."""

from omnisource.report.numbers import FilterScore, Funnel, Story
from omnisource.report.stage import render, write_report
from omnisource.report.truth import read_truth

__all__ = ["FilterScore", "Funnel", "Story", "read_truth", "render", "write_report"]
