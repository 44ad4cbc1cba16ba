"""Other libraries beside ours, in an environment of their own: `make bench-peers`. No tests: pytest skips this."""
