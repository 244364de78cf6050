"""`python -m uaihost.cli`."""

from uaihost.cli.main import main

main()
