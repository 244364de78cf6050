"""What tasks reach outside: the policy, and the proxy that is their only way out when it is not `open`."""
