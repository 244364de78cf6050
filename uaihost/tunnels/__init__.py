"""The host's end of every tunnel: from a frame of the bridge to a server in a task's container and back."""
