"""Training. So far: the script that made the shipped demonstration model."""
