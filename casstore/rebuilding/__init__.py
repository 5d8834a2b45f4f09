"""Packs that are lost, made again to the byte from the disk that was captured."""
