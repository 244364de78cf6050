"""The host, and a bridge beside it, as services: described once, written for each service manager."""
