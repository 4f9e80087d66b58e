"""What upstreams and downstreams share, one subject a file."""
