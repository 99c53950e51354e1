"""Handover of a mount from a daemon to its successor: the descriptor and the state kept between them."""
