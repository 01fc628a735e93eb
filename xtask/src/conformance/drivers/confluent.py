"""confluent-kafka (librdkafka) for the conformance suite."""

import time

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

import harness
from harness import KafkaFailure, Record, Unsupported


def answer(future):
    """The result of a librdkafka future, its error as the broker's code."""
    try:
        return future.result(timeout=20)
    except KafkaException as error:
        raise KafkaFailure(error.args[0].code(), error.args[0].str()) from error


class Confluent(harness.Adapter):
    def __init__(self, bootstrap):
        super().__init__(bootstrap)
        self.common = {"bootstrap.servers": bootstrap, "socket.timeout.ms": 20000}
        self.admin = AdminClient(self.common)

    def create(self, topic, partitions, config):
        new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=config)
        return answer(self.admin.create_topics([new])[topic])

    def delete(self, topic):
        return answer(self.admin.delete_topics([topic])[topic])

    def topics(self):
        return list(self.admin.list_topics(timeout=20).topics)

    def described(self, topic):
        return answer(self.admin.describe_topics(TopicCollection([topic]))[topic])

    def partitions(self, topic):
        return {p.id: p.leader.id if p.leader else -1 for p in self.described(topic).partitions}

    def topic_id(self, topic):
        return str(self.described(topic).topic_id)

    def add_partitions(self, topic, total):
        return answer(self.admin.create_partitions([NewPartitions(topic, total)])[topic])

    def describe_config(self, topic):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = answer(self.admin.describe_configs([resource])[resource])
        return {name: entry.value for name, entry in entries.items()}

    def alter_config(self, topic, changes):
        entries = [
            ConfigEntry(
                name,
                value,
                source=ConfigSource.DYNAMIC_TOPIC_CONFIG,
                incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
            )
            for name, value in changes.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        return answer(self.admin.incremental_alter_configs([resource])[resource])

    def alter_config_legacy(self, topic, changes):
        resource = ConfigResource(ResourceType.TOPIC, topic, set_config=changes)
        return answer(self.admin.alter_configs([resource])[resource])

    def cluster(self):
        described = answer(self.admin.describe_cluster())
        nodes = [(node.id, node.host, node.port) for node in described.nodes]
        return described.cluster_id, described.controller.id, nodes

    def delete_records(self, topic, before):
        partitions = [TopicPartition(topic, p, OFFSET_END if o == -1 else o) for p, o in before.items()]
        results = self.admin.delete_records(partitions)
        return {partition.partition: answer(future).low_watermark for partition, future in results.items()}

    def producer(self, acks=-1, codec=None, idempotent=False, partitioner=None, bulk=False, **options):
        settings = dict(self.common, acks=acks, **options)
        settings["message.max.bytes"] = 2_000_000
        settings["linger.ms"] = 20
        if codec:
            settings["compression.type"] = codec
        if idempotent:
            settings["enable.idempotence"] = True
        if partitioner:
            settings["partitioner"] = partitioner
        return Producer(settings)

    def produce(self, topic, outs, **options):
        producer = self.producer(**options)
        sent = {}
        errors = []

        def delivered(index):
            def callback(error, message):
                if error is not None:
                    errors.append(error)
                else:
                    sent[index] = (message.partition(), message.offset())

            return callback

        for index, out in enumerate(outs):
            extra = {}
            if out.partition is not None:
                extra["partition"] = out.partition
            if out.timestamp is not None:
                extra["timestamp"] = out.timestamp
            if out.headers is not None:
                extra["headers"] = out.headers
            self.put(producer, topic, out.value, key=out.key, on_delivery=delivered(index), **extra)
        left = producer.flush(25)
        if errors:
            raise KafkaFailure(errors[0].code(), errors[0].str())
        harness.expect_equal("records still unsent", left, 0)
        return [sent[index] for index in sorted(sent)]

    @staticmethod
    def put(producer, *arguments, **named):
        while True:
            try:
                return producer.produce(*arguments, **named)
            except BufferError:
                producer.poll(0.1)

    def produce_over_restart(self, topic, count, restart):
        producer = self.producer(idempotent=True, **{"delivery.timeout.ms": 60000})
        errors = []
        acked = []

        def delivered(error, message):
            (errors if error else acked).append(error or message.offset())

        def send(numbers):
            for number in numbers:
                self.put(producer, topic, str(number).encode(), partition=number % 3, on_delivery=delivered)

        send(range(count // 3))
        while not acked and not errors:
            producer.poll(0.1)
        send(range(count // 3, 2 * count // 3))
        restart()
        send(range(2 * count // 3, count))
        harness.expect_equal("records still unsent", producer.flush(60), 0)
        harness.expect_equal("errors", [str(error) for error in errors[:3]], [])
        harness.expect_equal("acknowledged", len(acked), count)

    def consumer(self, **options):
        settings = dict(self.common, **{"group.id": "unused", "enable.auto.commit": False})
        settings.update(options)
        return Consumer(settings)

    def read(self, consumer, count, seconds):
        records = []
        end = time.monotonic() + seconds
        while len(records) < count and time.monotonic() < end:
            for message in consumer.consume(min(count - len(records), 10_000), timeout=0.5):
                if message.error():
                    raise KafkaFailure(message.error().code(), message.error().str())
                kind, stamp = message.timestamp()
                append_time = kind == TIMESTAMP_LOG_APPEND_TIME
                place = (message.partition(), message.offset(), message.key(), message.value())
                records.append(Record(*place, message.headers(), stamp, append_time))
        return records

    def consume(self, topic, partition, start, count, seconds=20, reset="error", committed=False):
        isolation = "read_committed" if committed else "read_uncommitted"
        consumer = self.consumer(**{"auto.offset.reset": reset, "isolation.level": isolation})
        place = OFFSET_BEGINNING if start == "earliest" else start
        consumer.assign([TopicPartition(topic, partition, place)])
        records = self.read(consumer, count, seconds)
        consumer.close()
        return records

    def tail(self, topic, partition, then, count, wait_ms=500):
        consumer = self.consumer(**{"fetch.wait.max.ms": wait_ms, "socket.timeout.ms": wait_ms + 20000})
        at_end = self.watermarks(topic, partition)[1]
        consumer.assign([TopicPartition(topic, partition, OFFSET_END)])
        # The position is known once a fetch went out; librdkafka tells by its position call only
        # after the first record, so give it the time of a few round trips.
        for _ in range(10):
            consumer.poll(0.1)
        harness.expect(at_end >= 0, "no end of the log")
        then()
        records = self.read(consumer, count, 20)
        consumer.close()
        return records

    def watermarks(self, topic, partition):
        consumer = self.consumer()
        try:
            return consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
        except KafkaException as error:
            raise KafkaFailure(error.args[0].code(), error.args[0].str()) from error
        finally:
            consumer.close()

    def offset_for_time(self, topic, partition, stamp):
        consumer = self.consumer()
        [found] = consumer.offsets_for_times([TopicPartition(topic, partition, stamp)], timeout=20)
        consumer.close()
        if found.error:
            raise KafkaFailure(found.error.code(), found.error.str())
        return None if found.offset in (-1, OFFSET_END) else found.offset

    def max_timestamp(self, topic, partition):
        place = TopicPartition(topic, partition)
        found = answer(self.admin.list_offsets({place: OffsetSpec.max_timestamp()})[place])
        return found.offset, found.timestamp

    def log_dirs(self, topic):
        raise Unsupported("confluent-kafka has no describe log dirs")

    def group_consume(self, topic, group, count, commit):
        consumer = self.consumer(**{"group.id": group, "auto.offset.reset": "earliest"})
        consumer.subscribe([topic])
        records = self.read(consumer, count, 25)
        if commit:
            last = records[-1]
            consumer.commit(offsets=[TopicPartition(topic, last.partition, last.offset + 1)], asynchronous=False)
        consumer.close()
        return records

    def groups(self):
        return [group.group_id for group in answer(self.admin.list_consumer_groups()).valid]

    def transact(self, topic, identity, contents, commit):
        producer = self.producer(**{"transactional.id": identity})
        producer.init_transactions(20)
        producer.begin_transaction()
        for content in contents:
            producer.produce(topic, content, partition=0)
        producer.flush(20)
        producer.commit_transaction(20) if commit else producer.abort_transaction(20)


harness.run(Confluent)
