"""The app: the window and the terminal. It never imports torch."""
