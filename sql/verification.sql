-- What plain SQL can check of stored documents: one row an object. Sound ones have 0 gaps, 0 overlaps and 0 damaged documents.
--
--   baler sql --file sql/verification.sql    with INPUT=mongodb://host/compressed_data.documents in the environment
--
-- An end which is missing and documents which were replaced as a whole are found by `baler verify`, which knows the job's receipts.
CREATE EXTERNAL TABLE documents (
  object VARCHAR,
  version VARCHAR,
  byte_offset BIGINT,
  original_size BIGINT,
  compressed_size BIGINT,
  crc32 BIGINT,
  data BYTEA
) STORED AS MONGODB LOCATION '${INPUT}';

SELECT
  object,
  version,
  count(1) AS documents,
  sum(original_size) AS bytes,
  count(1) FILTER (WHERE byte_offset > expected) AS gaps,
  count(1) FILTER (WHERE byte_offset < expected) AS overlaps,
  count(1) FILTER (WHERE is_damaged) AS damaged
FROM (
  SELECT
    *,
    coalesce(lag(byte_offset + original_size) OVER (PARTITION BY object, version ORDER BY byte_offset), 0) AS expected
  FROM (
    SELECT
      object,
      version,
      byte_offset,
      original_size,
      (octet_length(data) IS DISTINCT FROM compressed_size)
        OR (octet_length(try_zlib_decompress(data)) IS DISTINCT FROM original_size)
        OR (crc32(try_zlib_decompress(data)) IS DISTINCT FROM crc32) AS is_damaged
    FROM documents
  )
)
GROUP BY object, version
ORDER BY object, version;
