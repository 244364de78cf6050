"""A scripted model API, for the real programs of agents: what it answers is what the last user text says.

As a package it serves tests; in a container `python3 -m model_api --port N` runs it: standard library only.
"""
