"""What a run was, for people: a page, a model card, lines for the terminal, and judged statements.

::

    Run ──> Records ──┬─> judge ──> findings.json
            records   ├─> build ──> report.html      (plots, templates)
                      ├─> write_card ──> README.md
                      └─> summary_lines ──> terminal

All of it stands on the records alone: no model and no torch.
"""

from unfreeze.report.build import build
from unfreeze.report.card import write_card
from unfreeze.report.findings import judge
from unfreeze.report.text import summary_lines

__all__ = ["build", "judge", "summary_lines", "write_card"]
