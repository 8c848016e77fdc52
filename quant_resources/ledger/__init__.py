"""The ledger: what must be transactional, in PostgreSQL (model registry, orders, positions).

`Ledger` gives transactions, `registry` and `order_book` hold the functions that read and write,
`*_tables` the tables, `migrations` the schema's history.
"""

# Imported for every table to be known, since their foreign keys reach over the modules.
from quant_resources.ledger import order_tables, registry_tables
from quant_resources.ledger.base import Base
from quant_resources.ledger.ledger import Ledger

__all__ = ["Base", "Ledger", "order_tables", "registry_tables"]
