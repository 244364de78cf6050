"""uaihost: a crew of coding agents on your own machine, reached through one outbound WebSocket."""

__version__ = "0.1.0"
