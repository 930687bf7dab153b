"""The widgets. Each gets its view model, and says what a person asked for by a signal."""
