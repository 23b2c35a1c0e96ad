"""Virtual XDM1041 meters, a virtual battery and a virtual Aretas cloud: what ``--demo`` runs on and the tests break.

Byte for byte what the real ones do, as far as the record in ``reference/`` goes, faults on demand included. Usable by
hand: ``python3 -m simulator --help``. Nothing here is imported by the daemon except for ``--demo``.
"""
