"""Turns events into committed rows, stage by stage: feed, fold, error policy, writer; and the loop that runs them."""
