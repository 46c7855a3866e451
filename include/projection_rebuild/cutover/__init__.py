"""The swap, the gate before it, what follows it, and the way back."""
