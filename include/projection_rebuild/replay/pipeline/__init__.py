"""From events to committed rows, stage by stage: feed, fold, error policy, writer; and the loop that drives them."""
