"""Tar archives as a stream: read strictly, with nothing believed, and written in the one form that all readers know.

What is understood: ustar and old GNU headers, PAX headers and GNU long names, GNU sparse members (old type `S`, and
PAX 0.0, 0.1 and 1.0), sizes in octal or base 256; in a file or pipe, plain or in zstd frames. Links, devices and all
that has no content is refused. Nothing is ever unpacked: who reads an archive gets names, extents and bytes.
"""
