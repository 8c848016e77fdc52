"""Everything the graph talks to: storage, ledger, market data, broker, exchange, PostgreSQL.

Nothing in here imports `quant_assets`.
"""
