"""The errors that a user may meet; each message says what is wrong, with which thing, and what to do.

Errors that belong to one module alone are subclasses defined in that module.
"""


class QuantError(Exception):
    """Base of all errors of this project; its message is one clear sentence for the user."""


class ConfigurationError(QuantError):
    """A setting, variable or argument is missing, contradictory or absurd."""


class DataError(QuantError):
    """Data does not say what it must say for the work to go on."""


class MissingPartitionError(DataError):
    """A stored partition that is needed has not been materialized."""


class SchemaError(DataError):
    """A frame does not match the declaration of its table."""


class StorageError(QuantError):
    """The data root cannot be read or written (no space, no permission)."""


class SourceError(QuantError):
    """A market data source answered with an error, with nonsense or not at all."""


class BrokerError(QuantError):
    """The broker refused, failed or answered something that cannot be understood."""


class LedgerError(QuantError):
    """The ledger refused a change, or does not hold what it must hold."""


class ExchangeError(QuantError):
    """The local exchange cannot be started, reached or used as asked."""
