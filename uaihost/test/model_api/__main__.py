"""`python3 -m model_api --port N`."""

import sys

from .server import main

main(sys.argv[1:])
