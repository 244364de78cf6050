"""The tests mirror the tree; integration/ and browser/ need an engine, other programs or real time."""
