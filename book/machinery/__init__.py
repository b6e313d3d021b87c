"""Code that only the book needs: profiles, sweeps, the ledger of claims, and published files.

It imports vaelib. No module of vaelib imports it.
"""
