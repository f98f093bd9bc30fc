"""The algorithms of the Processing provider, one file each."""
