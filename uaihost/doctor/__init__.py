"""Does a real path work, end to end, and what to type if it does not."""
