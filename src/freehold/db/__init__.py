"""The three databases of a home: connection, transactions, migrations.

Synchronous SQLAlchemy Core on SQLite in WAL mode; a flow opens the transaction and hands it to the rooms, which own
their SQL. There is no transaction across databases: bytes are durable first, then one catalog transaction, the ref last.
"""

from freehold.db.database import Database, open_database
from freehold.db.home import Home, ServerLock, open_home

__all__ = ["Database", "Home", "ServerLock", "open_database", "open_home"]
