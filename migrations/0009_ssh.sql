-- Users' SSH keys, one each; made on this host.

CREATE TABLE ssh_keys (
    user_id TEXT PRIMARY KEY,
    public BLOB NOT NULL,               -- the public key's blob (RFC 8709, section 4)
    secret BLOB NOT NULL,               -- sealed: the 32 bytes of the private key (RFC 8032, section 5.1.5)
    at INTEGER NOT NULL                 -- when it was made, milliseconds since the epoch
) STRICT;
