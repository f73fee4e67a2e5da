"""Google's emulators, for the engine `functions`."""

from tests.google_emulators import firestore_emulator, pubsub_emulator

__all__ = ["firestore_emulator", "pubsub_emulator"]
