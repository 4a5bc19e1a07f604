"""A table of a database, replaced in one transaction by what a frame holds.

Spark's own JDBC writer fills a table beside it, each task in a transaction of its own, some perhaps
twice; then one transaction of the driver empties the table and takes over the distinct rows.
(Spark SQL, JDBC To Other Databases)
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from clinloom.errors import MissingDependency, StoreError, UsageError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TEXT = "VARCHAR(1024)"  # of a column that is made: large objects are not compared everywhere
ROWS = "10000"  # in one statement; a database's own driver may join them further


def replace(
    spark: SparkSession,
    frame: DataFrame,
    *,
    url: str,
    table: str,
    properties: Mapping[str, str],
    rows: int,
) -> None:
    """Let ``table``, made where there is none, hold exactly the distinct rows of ``frame``.

    ``rows``: how many these are; other numbers change nothing. ``properties``: Spark's options of
    a connection (``user``, ``password``, ``driver`` …). Raises StoreError, which quotes neither
    these nor what the database says, and UsageError for a session without a JVM of its own.
    """
    if not hasattr(spark, "_jvm"):
        raise UsageError(
            "a database is written by a session whose driver is this process, not over Connect",
            where=table,
            mend="score on another platform, or to Parquet and let the database load it",
        )
    schema, dot, name = table.rpartition(".")
    beside = f"{schema}{dot}{name}_{uuid.uuid4().hex[:8]}"
    texts = [name for name, kind in frame.dtypes if kind == "string"]
    types = ", ".join(f"`{name}` {TEXT}" for name in texts)
    told = {"url": url, "batchsize": ROWS, "createTableColumnTypes": types, **properties}
    with _told(table):
        try:
            frame.write.format("jdbc").options(**told, dbtable=beside).save()
            empty = frame.limit(0).write.format("jdbc").options(**told, dbtable=table)
            empty.mode("append").save()
            _taken(spark, {**told, "dbtable": table}, beside, frame.columns, rows)
        finally:
            with suppress(Exception), _connected(spark, {**told, "dbtable": table}) as database:
                database.statement(f"DROP TABLE {beside}")
                database.commit()


def _taken(
    spark: SparkSession, told: Mapping[str, str], beside: str, columns: list[str], rows: int
) -> None:
    """One transaction: what is beside takes the place of what was there."""
    table = told["dbtable"]
    with _connected(spark, told) as database:
        names = ", ".join(database.quoted(column) for column in columns)
        database.statement(f"DELETE FROM {table}")  # noqa: S608  names, the site's own
        taken = database.statement(
            f"INSERT INTO {table} ({names}) SELECT DISTINCT {names} FROM {beside}"  # noqa: S608
        )
        if taken != rows:
            raise StoreError(f"{taken:,} of {rows:,} rows arrived; nothing changed", where=table)
        database.commit()


class _Database:
    """A connection of the driver, with what its dialect calls names."""

    def __init__(self, connection: Any, dialect: Any):
        self._connection, self._dialect = connection, dialect
        connection.setAutoCommit(False)

    def quoted(self, name: str) -> str:
        """A column as the database wants it."""
        return str(self._dialect.quoteIdentifier(name))

    def statement(self, text: str) -> int:
        """Run a statement; how many rows it changed."""
        statement = self._connection.createStatement()
        try:
            return int(statement.executeUpdate(text))
        finally:
            statement.close()

    def commit(self) -> None:
        """End the transaction."""
        self._connection.commit()

    def close(self) -> None:
        """What was not committed did not happen."""
        with suppress(Exception):
            self._connection.rollback()
        self._connection.close()


@contextmanager
def _connected(spark: SparkSession, told: Mapping[str, str]) -> Iterator[_Database]:
    """A connection as Spark's writer makes it, with its drivers and its kinds of login."""
    jvm: Any = spark._jvm
    held = jvm.java.util.HashMap()
    for name, value in told.items():
        held.put(name, value)
    scala = jvm.org.apache.spark.api.python.PythonUtils.toScalaMap(held)
    options = jvm.org.apache.spark.sql.execution.datasources.jdbc.JDBCOptions(scala)
    dialect = jvm.org.apache.spark.sql.jdbc.JdbcDialects.get(told["url"])
    made = _Database(dialect.createConnectionFactory(options).apply(-1), dialect)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def _told(table: str) -> Iterator[None]:
    """Faults of databases without their words, which may quote rows and logins."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        text = str(error)
        if "No suitable driver" in text or "ClassNotFoundException" in text:
            raise MissingDependency(
                "the session has no driver of that database",
                where=table,
                mend="give Spark its jar (spark.jars, or spark.jars.packages), or name `driver`",
            ) from None
        raise StoreError(
            f"the database cannot be written ({_kind(error)})",
            where=table,
            mend="may this login make, fill and empty the table, and one beside it?",
        ) from None


def _kind(error: Exception) -> str:
    """A fault's SQLSTATE where a driver told one, else Spark's or its own name."""
    cause = getattr(error, "java_exception", None)
    while cause is not None:
        if hasattr(cause, "getSQLState") and cause.getClass().getName().endswith("Exception"):
            with suppress(Exception):
                return f"SQLSTATE {cause.getSQLState()}"
        cause = cause.getCause()
    named = getattr(error, "getErrorClass", lambda: None)()
    return str(named or type(error).__name__)
