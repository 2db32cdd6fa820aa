"""What a machine runs."""
