"""Reading the event store: its high-water mark, pages of events, and how stored events are decoded."""
