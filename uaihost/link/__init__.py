"""The host's one WebSocket to its bridge, and what the bridge's end shares with it."""
