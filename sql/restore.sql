-- Reads one object back, chunk by chunk in order; `baler restore` writes whole objects, in bounded memory.
--
--   baler sql --file sql/restore.sql         with INPUT=mongodb://host/compressed_data.documents and OBJECT=s3://bucket/prefix/a.json in the environment
CREATE EXTERNAL TABLE documents (
  object VARCHAR,
  byte_offset BIGINT,
  data BYTEA
) STORED AS MONGODB LOCATION '${INPUT}';

SELECT byte_offset, zlib_decompress(data) AS content
FROM documents
WHERE object = '${OBJECT}'
ORDER BY byte_offset;
