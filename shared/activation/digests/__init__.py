"""One log of events through several engines, and a digest of what each makes of it."""
