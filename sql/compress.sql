-- Compresses objects into documents: one chunk of about 1 MiB, cut at a line's end, is one document.
--
--   baler run sql/compress.sql --job NAME --state URL --set INPUT=s3://bucket/prefix/ --set OUTPUT=./dump
--
-- sql/compress-to-mongodb.sql is the same job into a collection.
CREATE EXTERNAL TABLE objects STORED AS BLOB LOCATION '${INPUT}';

CREATE EXTERNAL TABLE documents STORED AS BSON LOCATION '${OUTPUT}'
OPTIONS ('bson.namespace' 'compressed_data.documents');

INSERT INTO documents
SELECT
  id AS _id,
  object,
  version,
  byte_offset,
  records,
  byte_length AS original_size,
  octet_length(data) AS compressed_size,
  compression_ratio(byte_length, octet_length(data)) AS compression_ratio,
  'zlib' AS codec,
  9 AS level,
  crc32(content) AS crc32,
  last_modified AS timestamp,
  data
FROM (SELECT *, zlib_compress(content, 9) AS data FROM objects);
