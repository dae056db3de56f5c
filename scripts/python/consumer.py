"""Reads item-purchased as any consumer downstream would, and prints each vendor's turnover."""

import os
from collections import defaultdict
from decimal import Decimal

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

topic = os.environ.get("TOPIC_PREFIX", "") + "item-purchased"
registry = SchemaRegistryClient({"url": os.environ.get("SCHEMA_REGISTRY_URL", "http://127.0.0.1:8081/apis/ccompat/v7")})
decode = AvroDeserializer(registry)
consumer = Consumer({
    "bootstrap.servers": os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"),
    "group.id": os.environ.get("GROUP_ID", "turnover"),
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",  # else purchases are seen that never were
})
consumer.subscribe([topic])

turnover = defaultdict(Decimal)
while True:
    message = consumer.poll(1)
    if message is None:
        continue
    if message.error():
        raise KafkaException(message.error())
    purchase = decode(message.value(), SerializationContext(topic, MessageField.VALUE))
    vendor = purchase["vendorId"]
    turnover[vendor] += purchase["price"] * purchase["quantity"]  # a Decimal: exact
    print(purchase["eventId"], vendor, turnover[vendor], flush=True)
