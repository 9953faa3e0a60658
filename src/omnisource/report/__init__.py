"""The report: one HTML file to look at."""

from omnisource.report.numbers import FilterScore, Funnel, Story
from omnisource.report.stage import render, write_report

__all__ = ["FilterScore", "Funnel", "Story", "render", "write_report"]
