"""Sources: one file is one kind of source.

Its verb is ``read(pieces, options, source) -> Iterator[{table: parcel}]``: a kernel that sees
files and yields events with the source's own patient identifiers. ``SPLITTABLE`` says whether a
large file may be cut at its lines, ``LINKS`` whether it tells which identifiers belong together.
"""
