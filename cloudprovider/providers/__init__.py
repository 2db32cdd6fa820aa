"""One cloud service, one file."""
