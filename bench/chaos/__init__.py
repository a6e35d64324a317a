"""Runs that are killed again and again must end as runs that never were, to the last bit.

    python -m bench.chaos --kills 200 --seed 1 --minutes 60

Real processes only: `aurl run` with its store, agents and ranks. Whom to kill when is a pure function of the
seed (plan.py), in stages of a run (stages.py) that are seen from outside, in the files it writes (watch.py);
victims.py strikes, campaign.py leads a run through its kills, judge.py compares it with an undisturbed one,
losses.py asks that no kill cost more than the steps since the last save, and __main__.py and report.py tell.
Linux only. Not here: faults of the store itself (tests/unit/trainer/store).
"""
