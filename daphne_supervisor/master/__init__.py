"""The master: a small process that keeps the wanted number of workers alive.

It imports neither the worker half nor any network library: `supervisor` decides, `processes`,
`signals` and `announce` act, and `master` is the loop between them.
"""
