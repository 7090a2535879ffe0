"""Reads the Parquet files that are named with DuckDB, and prints what it finds as one line of JSON."""

import json
import sys

import duckdb

files, path = sys.argv[2:], sys.argv[1]
connection = duckdb.connect(":memory:")
connection.execute("SET TimeZone = 'UTC'")


def ask(question, *values):
    return connection.execute(question, [files, *values]).fetchall()


def first(question, *values):
    return ask(question, *values)[0][0]


print(json.dumps({
    "rows": first("SELECT count(*) FROM read_parquet(?)"),
    "bytes": int(first("SELECT sum(bytes) FROM read_parquet(?) WHERE kind = 'usb.write'") or 0),
    "path": ask(
        "SELECT cursor, device_serial, pid, argv FROM read_parquet(?) WHERE file_path = ?", path
    ),
    "time": first("SELECT strftime(max(time), '%Y-%m-%d %H:%M:%S.%n') FROM read_parquet(?)"),
    "types": ask(
        "SELECT name, type FROM (SELECT column_name AS name, column_type AS type"
        " FROM (DESCRIBE SELECT * FROM read_parquet(?)))"
    ),
    "events": ask("SELECT cursor, host, hex(event) FROM read_parquet(?) ORDER BY cursor"),
}))
