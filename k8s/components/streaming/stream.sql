-- sql/stream.sql for a broker that wants TLS and a login; user and password come from KAFKA_USERNAME and KAFKA_PASSWORD.
CREATE EXTERNAL TABLE feed STORED AS KAFKA LOCATION '${FEED}'
OPTIONS (
  'kafka.max_records_per_partition_per_second' '100000',
  'kafka.client.security.protocol' 'SASL_SSL',
  'kafka.client.sasl.mechanism' 'SCRAM-SHA-256',
  'kafka.client.ssl.ca.location' '${AWS_CA_BUNDLE}'
);

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
