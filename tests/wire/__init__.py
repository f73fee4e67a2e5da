"""Servers that speak the wire protocols of Google services, for the real clients to talk to."""
