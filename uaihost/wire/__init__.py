"""What travels on the bridge WebSocket. Pure: no Twisted, nothing of ours imported from outside."""
