"""The history of the ledger's schema.

Belongs here: revisions (`versions/`), what they share, and how a new one is drafted:
`python -m quant_resources.ledger.migrations "what changes"`. Does not belong here: tables, and
applying revisions (`quant_resources/ledger/migrate.py`).
"""
