"""The streaming job: records of a topic into compressed documents. `spark-submit stream.py SERVERS TOPIC OUTPUT CHECKPOINT`

With availableNow in place of the 30 s trigger it takes what the topic holds, in the same micro-batches, and ends.
"""

import sys

from pyspark import TaskContext
from pyspark.sql import SparkSession

from documents import CHUNK_BYTES, document, open_sink, prepare

SERVERS, TOPIC, TARGET, CHECKPOINT = sys.argv[1:5]


def runs(batches):
    """Runs of consecutive values of one partition of the topic, a line each, up to 1 MiB; with first and last record."""
    lines, size, first, last = [], 0, None, None
    for batch in batches:
        for record in zip(*(column.to_pylist() for column in batch.columns)):
            partition, value = record[0], record[3]
            if lines and (partition != first[0] or size + len(value) + 1 > CHUNK_BYTES):
                yield lines, first, last
                lines, size = [], 0
            first, last = (first if lines else record), record
            lines.append(value)
            size += len(value) + 1
    if lines:
        yield lines, first, last


def write(batch_id):
    def write_partition(batches):
        import pyarrow

        sink, count = open_sink(TARGET, f"{batch_id}-{TaskContext.get().partitionId():05}"), 0
        for lines, first, last in runs(batches):
            lines.append(b"")
            origin = {"topic": TOPIC, "partition": first[0], "first_offset": first[1], "last_offset": last[1]}
            sink.write(document(origin, b"\n".join(lines), last[2]))
            count += 1
        sink.close()
        yield pyarrow.RecordBatch.from_pydict({"documents": [count]})

    return write_partition


def write_batch(records, batch_id):
    columns = records.select("partition", "offset", "timestamp", "value")
    print(columns.mapInArrow(write(batch_id), "documents long").groupBy().sum().first()[0], "documents")


if __name__ == "__main__":
    prepare(TARGET)
    spark = SparkSession.builder.appName("stream").getOrCreate()
    feed = spark.readStream.format("kafka").option("kafka.bootstrap.servers", SERVERS).option("subscribe", TOPIC)
    feed = feed.option("startingOffsets", "earliest").load()
    query = feed.writeStream.foreachBatch(write_batch).option("checkpointLocation", CHECKPOINT).trigger(availableNow=True).start()
    query.awaitTermination()
    spark.stop()
