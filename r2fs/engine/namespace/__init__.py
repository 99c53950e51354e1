"""Namespace: create, remove, rename and list names; attributes and xattrs; how fresh a listing is."""
