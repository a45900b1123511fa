"""The record, to look at: tables for a terminal and one page for a browser. Reads a study, writes none."""

from lkspace.report.candidate import candidate_text
from lkspace.report.page import write_page
from lkspace.report.tables import front_csv, front_json, front_table
from lkspace.report.trust import trust_table

__all__ = ["candidate_text", "front_csv", "front_json", "front_table", "trust_table", "write_page"]
