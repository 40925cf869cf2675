"""Connections and clients: told apart by what they are, not by what is in them."""

from __future__ import annotations

from daphne_supervisor.broker.peers import Client, Peer
from tests.support.ports import FakePort


def test_two_with_the_same_contents_are_two() -> None:
    """They are keys of sets: one that leaves takes no other with it."""
    port = FakePort()
    assert len({Peer(port), Peer(port)}) == 2
    assert len({Client("ds-1"), Client("ds-1")}) == 2
