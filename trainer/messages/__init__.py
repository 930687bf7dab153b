"""The vocabulary of the app and the worker: what they say to each other, and the records in it; no torch."""
