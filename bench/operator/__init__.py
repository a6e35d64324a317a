"""How fast the operator makes pods of jobs, on fake nodes, against a bare client in the same run.

    python -m bench.operator --jobs 300 --rate 15

KUBECONFIG names a cluster with kwok nodes (label `type=kwok`); no other operator may be at work there.
"""
