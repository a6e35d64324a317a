"""A random bit flips in every object of a run's place in turn: it is found, and never loaded.

    python -m bench.bitrot --bits 40 --seed 1

place.py makes a place with every kind of object in it, flips.py says what a flip damages, judge.py asks all
that read, __main__.py counts and tells.
Not here: the same on real stores (tests/integration/stores), other damage (tests/unit/trainer/checkpoint).
"""
