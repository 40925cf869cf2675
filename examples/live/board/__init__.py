"""The one app: a board with a page, a chat, a clock, a guest book and an upload."""
