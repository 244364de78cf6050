# Debian's /etc/profile resets PATH for login shells, and agents run commands in those (`bash -lc`).
PATH=/home/dev/.local/share/mise/shims:/home/dev/.local/bin:/opt/node/bin:/usr/local/bin:/usr/bin:/bin
