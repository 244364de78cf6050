"""The host, and a bridge on the same machine, as services: described once, written for each service manager."""
