-- Compression statistics of stored documents.
--
--   baler sql --file sql/stats.sql           with INPUT=mongodb://host/compressed_data.documents in the environment
--
-- The same question in mongosh:
--   db.documents.aggregate([{ $group: { _id: null, avgRatio: { $avg: "$compression_ratio" }, totalDocs: { $sum: 1 } } }])
CREATE EXTERNAL TABLE documents (
  compression_ratio DOUBLE,
  records BIGINT,
  original_size BIGINT,
  compressed_size BIGINT
) STORED AS MONGODB LOCATION '${INPUT}';

SELECT
  count(*) AS documents,
  sum(records) AS records,
  sum(original_size) AS original_size,
  sum(compressed_size) AS compressed_size,
  avg(compression_ratio) AS average_ratio,
  sum(original_size) / CAST(sum(compressed_size) AS DOUBLE) AS overall_ratio
FROM documents;
