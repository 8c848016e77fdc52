"""Markets the local exchange can be: one file for each, all giving the same `MarketData`."""
