"""One file for each table that a rule writes."""
