"""From records to numbers with intervals, and their comparison."""
