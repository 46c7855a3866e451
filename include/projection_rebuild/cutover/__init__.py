"""The cutover: the low-traffic gate, the swap, the reconciliation after it, and the rollback."""
