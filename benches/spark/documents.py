"""The standard document and the two sinks, for both jobs. It runs in Spark's Python workers."""

import hashlib
import os
import zlib

import bson

CHUNK_BYTES = 1 << 20
# A batch of insert_many: the seed's number of documents, and no more bytes than Baler sends at once.
BATCH_DOCS, BATCH_BYTES = 1000, 16 << 20


def document(origin, raw, timestamp):
    """A chunk as a document: `origin` says where it comes from, and makes the `_id`, so that a repeated task writes equal ones."""
    data = zlib.compress(raw, 9)
    return {
        "_id": hashlib.sha256("\0".join(map(str, origin.values())).encode()).hexdigest()[:32],
        **origin,
        "records": raw.count(b"\n"),
        "original_size": len(raw),
        "compressed_size": len(data),
        "compression_ratio": len(raw) / len(data),
        "codec": "zlib",
        "level": 9,
        "crc32": zlib.crc32(raw),
        "timestamp": timestamp,
        "data": data,
    }


def prepare(location):
    """Makes the seed's indexes, where the sink is a collection."""
    if location.startswith("mongodb://"):
        collection = Collection(location).collection
        for field in ("compression_ratio", "timestamp"):
            collection.create_index(field)


def open_sink(location, name):
    """A collection by its URL; else the part `name` of a dump in that folder."""
    return Collection(location) if location.startswith("mongodb://") else Dump(location, name)


class Dump:
    """One file of BSON documents, which has its name when it is whole and on the disk."""

    def __init__(self, folder, name):
        database = os.path.join(folder, "compressed_data")
        os.makedirs(database, exist_ok=True)
        self.path = os.path.join(database, f"documents.{name}.bson")
        self.file = open(self.path + ".part", "wb")

    def write(self, row):
        self.file.write(bson.encode(row))

    def close(self):
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.rename(self.file.name, self.path)


class Collection:
    """Unordered batches, acknowledged by a majority and its journal, as Baler's are."""

    def __init__(self, url):
        from pymongo import MongoClient, WriteConcern

        server, _, rest = url.rpartition("/")
        namespace, _, options = rest.partition("?")
        database, _, collection = namespace.partition(".")
        concern = WriteConcern(w="majority", j=True)
        self.collection = MongoClient(f"{server}/?{options}")[database].get_collection(collection, write_concern=concern)
        self.rows, self.bytes = [], 0

    def write(self, row):
        self.rows.append(row)
        self.bytes += row["compressed_size"]
        if len(self.rows) >= BATCH_DOCS or self.bytes >= BATCH_BYTES:
            self.send()

    def send(self):
        if self.rows:
            self.collection.insert_many(self.rows, ordered=False)
        self.rows, self.bytes = [], 0

    def close(self):
        self.send()
