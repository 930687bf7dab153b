"""The state of each screen, without a widget."""
