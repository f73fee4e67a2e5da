"""Google's emulators, for the engine `functions`."""

from tests.google_emulators import firestore_emulator as firestore_emulator
from tests.google_emulators import pubsub_emulator as pubsub_emulator
