"""The trainer: fine-tunes a model in a worker process. Importing this package imports nothing heavy, and never Qt."""
