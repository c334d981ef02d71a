"""What becomes of draws: labels, cuts, summaries, ArviZ."""
