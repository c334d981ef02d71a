"""What long runs share: progress, Ctrl-C, fingerprints of what is resumed."""
