"""A process that ends at the n-th operation on its store, for every n: nothing committed is ever lost.

    python -m bench.stops --stops 10000 --seed 1

Over a store in memory, so that ten thousand ends take minutes. history.py makes a run's past, works.py has
what is interrupted, trial.py interrupts, judge.py looks at what is left, workers.py does many pasts at once,
__main__.py counts and tells.
Not here: ends of real processes (bench/chaos), flipped bits (bench/bitrot).
"""
