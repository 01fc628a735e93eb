"""kafka-python for the conformance suite."""

import re
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource
from kafka.errors import KafkaError
from kafka.protocol.consumer import OffsetSpec
from kafka.structs import OffsetAndMetadata

import harness
from harness import KafkaFailure, Record


def failure(error):
    """The broker's code of a client's error; other errors pass unchanged."""
    code = getattr(error, "errno", None)
    return KafkaFailure(code, str(error)) if code is not None else error


def call(action, *arguments, **named):
    try:
        return action(*arguments, **named)
    except KafkaError as error:
        raise failure(error) from error


def check(code, message=""):
    if code:
        raise KafkaFailure(code, message)


class KafkaPython(harness.Adapter):
    def __init__(self, bootstrap):
        super().__init__(bootstrap)
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)

    def close(self):
        self.admin.close()

    def create(self, topic, partitions, config):
        wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": config}
        return call(self.admin.create_topics, {topic: wanted})

    def delete(self, topic):
        return call(self.admin.delete_topics, [topic])

    def topics(self):
        return call(self.admin.list_topics)

    def described(self, topic):
        [described] = call(self.admin.describe_topics, [topic])
        check(described["error_code"])
        return described

    def partitions(self, topic):
        return {p["partition_index"]: p["leader_id"] for p in self.described(topic)["partitions"]}

    def topic_id(self, topic):
        return str(self.described(topic)["topic_id"])

    def add_partitions(self, topic, total):
        return call(self.admin.create_partitions, {topic: total})

    def describe_config(self, topic):
        resource = ConfigResource("TOPIC", topic)
        entries = call(self.admin.describe_configs, [resource], config_filter="all")["topic"][topic]
        return {name: entry["value"] for name, entry in entries.items()}

    # For what a change does not name, this client sends the present value again.
    legacy_keeps_others = True

    @staticmethod
    def altered(results, topic):
        """The client turns errors into text: `[Error 40] ...`."""
        result = results["topic"][topic]
        code = re.match(r"\[Error (-?\d+)\]", result)
        if code:
            raise KafkaFailure(int(code[1]), result)
        harness.expect_equal("result", result, "OK")

    def alter_config(self, topic, changes):
        sets = {name: value for name, value in changes.items() if value is not None}
        resets = [name for name, value in changes.items() if value is None]
        if sets:
            self.altered(call(self.admin.alter_configs, [ConfigResource("TOPIC", topic, sets)]), topic)
        if resets:
            self.altered(call(self.admin.reset_configs, [ConfigResource("TOPIC", topic, resets)]), topic)

    def alter_config_legacy(self, topic, changes):
        resource = ConfigResource("TOPIC", topic, dict(changes))
        self.altered(call(self.admin.alter_configs, [resource], incremental=False), topic)

    def cluster(self):
        described = call(self.admin.describe_cluster)
        brokers = [(b["broker_id"], b["host"], b["port"]) for b in described["brokers"]]
        return described["cluster_id"], described["controller_id"], brokers

    def log_dirs(self, topic):
        sizes = {}
        for broker in call(self.admin.describe_log_dirs, {topic: [0, 1]}):
            for log_dir in broker["log_dirs"]:
                check(log_dir["error_code"])
                for described in log_dir["topics"]:
                    for partition in described["partitions"]:
                        sizes[partition["partition_index"]] = partition["partition_size"]
        return sizes

    def delete_records(self, topic, before):
        asked = {TopicPartition(topic, p): offset for p, offset in before.items()}
        results = call(self.admin.delete_records, asked)
        return {place.partition: result["low_watermark"] for place, result in results.items()}

    def producer(self, acks=-1, codec=None, idempotent=False, partitioner=None, bulk=False, **options):
        settings = {"acks": acks, "linger_ms": 20, "max_request_size": 2_000_000, **options}
        if bulk:
            settings["batch_size"] = 128 * 1024
        return KafkaProducer(
            bootstrap_servers=self.bootstrap,
            enable_idempotence=idempotent,
            compression_type=codec,
            **settings,
        )

    @staticmethod
    def put(producer, topic, out):
        return producer.send(
            topic,
            value=out.value,
            key=out.key,
            headers=out.headers,
            partition=out.partition,
            timestamp_ms=out.timestamp,
        )

    def produce(self, topic, outs, **options):
        producer = self.producer(**options)
        try:
            futures = [call(self.put, producer, topic, out) for out in outs]
            producer.flush(25)
            done = [call(future.get, timeout=20) for future in futures]
            return [(metadata.partition, metadata.offset) for metadata in done]
        finally:
            producer.close(timeout=10)

    def produce_over_restart(self, topic, count, restart):
        producer = self.producer(idempotent=True, bulk=True)
        third = count // 3

        def send(numbers):
            return [producer.send(topic, str(n).encode(), partition=n % 3) for n in numbers]

        futures = send(range(third))
        futures[0].get(timeout=20)
        futures += send(range(third, 2 * third))
        restart()
        futures += send(range(2 * third, count))
        producer.flush(60)
        for future in futures:
            call(future.get, timeout=30)
        producer.close(timeout=10)

    def consumer(self, **options):
        settings = {"bootstrap_servers": self.bootstrap, "group_id": None, "enable_auto_commit": False}
        settings.update(options)
        return KafkaConsumer(**settings)

    def read(self, consumer, count, seconds):
        records = []
        end = time.monotonic() + seconds
        while len(records) < count and time.monotonic() < end:
            polled = call(consumer.poll, timeout_ms=500, max_records=count - len(records))
            for batch in polled.values():
                for got in batch:
                    place = (got.partition, got.offset, got.key, got.value)
                    append_time = got.timestamp_type == 1
                    records.append(Record(*place, got.headers, got.timestamp, append_time))
        return records

    def consume(self, topic, partition, start, count, seconds=20, reset="earliest", committed=False):
        isolation = "read_committed" if committed else "read_uncommitted"
        consumer = self.consumer(auto_offset_reset=reset, isolation_level=isolation)
        place = TopicPartition(topic, partition)
        consumer.assign([place])
        if start == "earliest":
            consumer.seek_to_beginning(place)
        else:
            consumer.seek(place, start)
        try:
            return self.read(consumer, count, seconds)
        finally:
            consumer.close()

    def tail(self, topic, partition, then, count, wait_ms=500):
        consumer = self.consumer(fetch_max_wait_ms=wait_ms)
        place = TopicPartition(topic, partition)
        consumer.assign([place])
        consumer.seek_to_end(place)
        harness.expect(consumer.position(place) is not None, "no position at the end")
        consumer.poll(timeout_ms=200)
        then()
        try:
            return self.read(consumer, count, 20)
        finally:
            consumer.close()

    def watermarks(self, topic, partition):
        consumer = self.consumer()
        place = TopicPartition(topic, partition)
        try:
            low = call(consumer.beginning_offsets, [place])[place]
            return low, call(consumer.end_offsets, [place])[place]
        finally:
            consumer.close()

    def offset_for_time(self, topic, partition, stamp):
        consumer = self.consumer()
        place = TopicPartition(topic, partition)
        try:
            found = call(consumer.offsets_for_times, {place: stamp})[place]
            return None if found is None else found.offset
        finally:
            consumer.close()

    def max_timestamp(self, topic, partition):
        place = TopicPartition(topic, partition)
        found = call(self.admin.list_partition_offsets, {place: OffsetSpec.MAX_TIMESTAMP})[place]
        return found.offset, found.timestamp

    def group_consume(self, topic, group, count, commit):
        consumer = self.consumer(group_id=group, auto_offset_reset="earliest")
        consumer.subscribe([topic])
        records = self.read(consumer, count, 25)
        if commit:
            last = records[-1]
            place = TopicPartition(topic, last.partition)
            consumer.commit({place: OffsetAndMetadata(last.offset + 1, "", -1)})
        consumer.close()
        return records

    def groups(self):
        return [group["group_id"] for group in call(self.admin.list_groups)]

    def transact(self, topic, identity, contents, commit):
        producer = self.producer(idempotent=True, transactional_id=identity)
        producer.init_transactions()
        producer.begin_transaction()
        for content in contents:
            producer.send(topic, content, partition=0)
        producer.flush(20)
        producer.commit_transaction() if commit else producer.abort_transaction()
        producer.close(timeout=10)


harness.run(KafkaPython)
