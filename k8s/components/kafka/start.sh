#!/bin/sh
# Starts broker number N of pod kafka-N; formats its disk when that is empty.
set -eu
: "${POD_NAME:?}" "${CLUSTER_ID:?}" "${KAFKA_USERNAME:?}" "${KAFKA_PASSWORD:?}"
number=${POD_NAME##*-}
cp /config/server.properties /tmp/server.properties
{
  echo "node.id=$number"
  echo "advertised.listeners=CLIENT://$POD_NAME.kafka.baler.svc:9092,INTERNAL://$POD_NAME.kafka.baler.svc:9094,CONTROLLER://$POD_NAME.kafka.baler.svc:9093"
} >>/tmp/server.properties
/opt/kafka/bin/kafka-storage.sh format --ignore-formatted --cluster-id "$CLUSTER_ID" --config /tmp/server.properties \
  --add-scram "SCRAM-SHA-256=[name=$KAFKA_USERNAME,password=$KAFKA_PASSWORD]"
exec /opt/kafka/bin/kafka-server-start.sh /tmp/server.properties
