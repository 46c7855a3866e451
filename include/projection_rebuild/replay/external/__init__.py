"""Projectors that are programs of their own: how they are called, and ended."""
