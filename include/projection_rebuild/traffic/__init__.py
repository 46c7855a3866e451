"""Whether now is a good moment: the application's traffic, and the throttle of a replay."""
