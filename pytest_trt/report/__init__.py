"""Reports: render records, decide nothing."""
