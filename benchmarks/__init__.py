"""The benchmarks: uaihost beside the reference host and OpenSSH, in one run. See README.md."""
