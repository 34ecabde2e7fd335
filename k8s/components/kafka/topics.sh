#!/bin/sh
# Makes the topic which the streaming query reads, if it is not there.
set -eu
: "${KAFKA_USERNAME:?}" "${KAFKA_PASSWORD:?}"
cat >/tmp/client.properties <<END
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-256
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="$KAFKA_USERNAME" password="$KAFKA_PASSWORD";
ssl.truststore.type=PEM
ssl.truststore.location=/tls/ca.crt
END
exec /opt/kafka/bin/kafka-topics.sh --bootstrap-server kafka.baler.svc:9092 --command-config /tmp/client.properties \
  --create --if-not-exists --topic events --partitions 20 --replication-factor 3
