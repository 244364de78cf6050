"""The tests mirror the tree; what needs an engine, other programs or real time is under integration/ and browser/."""
