"""The local exchange: a server that speaks Alpaca's REST API over a virtual clock.

One process serves market data and trading under one loopback address, so that alpaca-py's own
clients work against it unchanged (`url_override`). How it works, in ten sentences:

1. A `MarketSpec` names a market, and `markets/` turns it into bars, corporate actions and listings.
2. The clock moves only when it is told to, and only forward; `visibility.py` decides what may be seen.
3. An order is read by `tickets.py`, checked by `order_entry.py`, taken by `order_desk.py` and kept by
   `state.py`; nothing fills at that moment.
4. Moving the clock plays every event on the way in order (`session_events.py`): the start of a day
   with its corporate actions, the open, the close.
5. `matching.py` says what an order gets from a bar, `brackets.py` what that means for the orders bound to
   it, `account.py` and `book.py` what it does to the account.
6. `corrections.py` takes back what was reported of a fill: busts and corrections.
7. One request is one SQLite transaction, so killing the server at any moment loses nothing.
8. `api_data.py`, `api_orders.py`, `api_trading.py` and `api_control.py` put this into Alpaca's words, and
   `stream.py` tells what happens to orders.
9. A fault plan (`faults.py`) breaks chosen answers on the wire, before or after the exchange has acted.
10. A restatement (`restatements.py`) changes what has been published, never what was traded on.

`process.py` starts, finds and stops the server; the graph imports nothing else from here.
"""
