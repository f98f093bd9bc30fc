"""Imagery and labels for training and evaluation; needs the extra ``train``."""
