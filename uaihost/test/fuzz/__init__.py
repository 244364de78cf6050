"""Fuzzing of whatever reads bytes of others: `python -m uaihost.test.fuzz`."""
