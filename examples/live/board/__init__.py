"""The one app: a board with a page, an echo, a clock, a guest book and an upload."""
