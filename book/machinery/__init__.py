"""What only makes the book: profiles, sweeps, the ledger of claims, and what is published of the runs.

It stands on the rest of the package, of which nothing knows it but the command line.
"""
