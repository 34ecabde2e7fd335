-- Compresses the records of a topic into documents: up to about 1 MiB of consecutive records, a line each, is one document.
--
--   baler stream sql/stream.sql --name NAME --state URL --set INPUT=kafka://host:9092/topic --set OUTPUT=mongodb://host/compressed_data.documents
--
-- `baler run` with the same file takes what the topic holds now, and ends. Values which may hold line feeds, and keys, want
-- the option 'kafka.framing' 'length_prefixed'.
CREATE EXTERNAL TABLE feed STORED AS KAFKA LOCATION '${INPUT}'
OPTIONS ('kafka.max_records_per_partition_per_second' '100000');

CREATE EXTERNAL TABLE documents STORED AS MONGODB LOCATION '${OUTPUT}'
OPTIONS ('mongodb.indexes' 'compression_ratio, timestamp');

INSERT INTO documents
SELECT
  id AS _id,
  topic,
  partition,
  first_offset,
  last_offset,
  records,
  byte_length AS original_size,
  octet_length(data) AS compressed_size,
  compression_ratio(byte_length, octet_length(data)) AS compression_ratio,
  'zlib' AS codec,
  9 AS level,
  crc32(content) AS crc32,
  last_timestamp AS timestamp,
  data
FROM (SELECT *, zlib_compress(content, 9) AS data FROM feed);
