"""Runs statements through ADBC's Flight SQL driver, as a user's program would.

Usage: adbc.py URL USER WAY SQL [WAY SQL]...

WAY is `query` (cursor.execute, which prepares), `direct` (does not), `update` (execute_update), `prepared-update` or `tables`. Each
statement prints one line of JSON: columns, rows as text, count, error. SIGTERM cancels the statement that runs. USER `-` does not log in.
The environment may name a password (CLIENT_PASSWORD) and the authority of a grpc+tls:// URL (CLIENT_CA).
"""

import json
import os
import signal
import sys
import threading

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow


def text(value):
    if isinstance(value, bytes):
        return value.hex()
    return None if value is None else str(value)


def table(reader):
    rows = reader.read_all()
    columns = [column.to_pylist() for column in rows.columns]
    return {"columns": rows.column_names, "rows": [[text(value) for value in row] for row in zip(*columns)]}


def direct(connection, sql):
    with adbc_driver_manager.AdbcStatement(connection.adbc_connection) as statement:
        statement.set_sql_query(sql)
        stream, _ = statement.execute_query()
        return table(pyarrow.RecordBatchReader._import_from_c(stream.address))


def update(connection, sql, is_prepared):
    with adbc_driver_manager.AdbcStatement(connection.adbc_connection) as statement:
        statement.set_sql_query(sql)
        if is_prepared:
            statement.prepare()
        return {"count": statement.execute_update()}


def run(connection, cursor, way, sql):
    if way == "query":
        cursor.execute(sql)
        return table(cursor.fetch_record_batch())
    if way == "direct":
        return direct(connection, sql)
    if way in ("update", "prepared-update"):
        return update(connection, sql, way == "prepared-update")
    if way == "tables":
        objects = connection.adbc_get_objects(depth="tables", table_name_filter=sql).read_all().to_pylist()
        schemas = [schema for catalog in objects for schema in catalog["catalog_db_schemas"]]
        return {"rows": [[t["table_name"], t["table_type"]] for schema in schemas for t in schema["db_schema_tables"] or []]}
    raise SystemExit(f"unknown way {way}")


def main():
    url, user, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
    login = {} if user == "-" else {"username": user, "password": os.environ.get("CLIENT_PASSWORD", "any")}
    if authority := os.environ.get("CLIENT_CA"):
        with open(authority) as file:
            login["adbc.flight.sql.client_option.tls_root_certs"] = file.read()
    with adbc_driver_flightsql.dbapi.connect(url, db_kwargs=login, autocommit=True) as connection:
        for way, sql in zip(rest[::2], rest[1::2]):
            with connection.cursor() as cursor:
                signal.signal(signal.SIGTERM, lambda *_: cursor.adbc_cancel())
                answer = {}

                def work():
                    try:
                        answer.update(run(connection, cursor, way, sql))
                    except Exception as error:
                        answer["error"] = str(error)

                # Python runs signal handlers in the main thread only, which must not be in the driver.
                thread = threading.Thread(target=work)
                thread.start()
                while thread.is_alive():
                    thread.join(0.1)
                print(json.dumps(answer), flush=True)


main()
