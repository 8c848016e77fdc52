"""The graph and the quant code: stages in the order in which data flows, automation, command line."""

import warnings

# Features of Dagster that are used on purpose although they are in preview or beta, one by one.
for _text in (
    "Parameter `allow_nonexistent_upstream_partitions`",
    "Parameter `backfill_policy`",
):
    warnings.filterwarnings("ignore", _text)
