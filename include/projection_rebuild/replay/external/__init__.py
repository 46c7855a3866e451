"""Calls projectors that are programs of their own, watches them, and ends them."""
