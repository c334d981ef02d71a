"""A fitted estimator on one HTML page, for whoever wants to know what was found and whether to believe it."""

from marginax.report.write import write_report as write_report
