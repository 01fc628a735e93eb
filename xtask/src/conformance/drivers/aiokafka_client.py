"""aiokafka for the conformance suite. The adapter keeps one event loop and runs it per primitive."""

import asyncio
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

import harness
from harness import KafkaFailure, Record

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)


def run(coroutine, seconds=60):
    """Runs `coroutine` to its end; an error of the broker becomes its code."""
    try:
        return loop.run_until_complete(asyncio.wait_for(coroutine, seconds))
    except KafkaError as error:
        code = getattr(error, "errno", None)
        raise (KafkaFailure(code, str(error)) if code is not None else error) from error


def check(code, message=""):
    if code:
        raise KafkaFailure(code, message or "")


class AioKafka(harness.Adapter):
    metadata_creates_topics = True

    def __init__(self, bootstrap):
        super().__init__(bootstrap)
        self.admin = run(self.make(AIOKafkaAdminClient))

    async def make(self, kind, **options):
        client = kind(bootstrap_servers=self.bootstrap, **options)
        await client.start()
        return client

    def close(self):
        run(self.admin.close())

    def create(self, topic, partitions, config):
        new = NewTopic(topic, partitions, 1, topic_configs=config)
        for _, code, message in run(self.admin.create_topics([new])).topic_errors:
            check(code, message)

    def delete(self, topic):
        for _, code, *_ in run(self.admin.delete_topics([topic])).topic_error_codes:
            check(code)

    def topics(self):
        return run(self.admin.list_topics())

    def described(self, topic):
        [described] = run(self.admin.describe_topics([topic]))
        check(described["error_code"])
        return described

    def partitions(self, topic):
        return {p["partition"]: p["leader"] for p in self.described(topic)["partitions"]}

    def topic_id(self, topic):
        return None  # aiokafka asks Metadata 5 at most, which has no topic ids

    def add_partitions(self, topic, total):
        return run(self.admin.create_partitions({topic: NewPartitions(total)}))

    def describe_config(self, topic):
        [answer] = run(self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
        [(code, message, _, _, entries)] = answer.resources
        check(code, message)
        return {entry[0]: entry[1] for entry in entries}

    def alter_config_legacy(self, topic, changes):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, changes)
        for answer in run(self.admin.alter_configs([resource])):
            for code, message, *_ in answer.resources:
                check(code, message)

    def cluster(self):
        described = run(self.admin.describe_cluster())
        brokers = [(b["node_id"], b["host"], b["port"]) for b in described["brokers"]]
        return described.get("cluster_id"), described["controller_id"], brokers

    def delete_records(self, topic, before):
        asked = {TopicPartition(topic, p): RecordsToDelete(offset) for p, offset in before.items()}
        low = run(self.admin.delete_records(asked))
        return {place.partition: offset for place, offset in low.items()}

    async def producer(self, acks=-1, codec=None, idempotent=False, partitioner=None, bulk=False, **more):
        return await self.make(
            AIOKafkaProducer,
            acks=acks,
            compression_type=codec,
            enable_idempotence=idempotent,
            max_request_size=2_000_000,
            max_batch_size=256 * 1024 if bulk else 16 * 1024,
            linger_ms=10,
            **more,
        )

    def produce(self, topic, outs, **options):
        async def all_of_them():
            producer = await self.producer(**options)
            try:
                futures = []
                for out in outs:
                    sending = producer.send(
                        topic,
                        out.value,
                        key=out.key,
                        partition=out.partition,
                        timestamp_ms=out.timestamp,
                        headers=out.headers,
                    )
                    futures.append(await sending)
                done = [await future for future in futures]
                return [(record.partition, record.offset) if record else (None, None) for record in done]
            finally:
                await producer.stop()

        return run(all_of_them())

    def produce_over_restart(self, topic, count, restart):
        third = count // 3

        async def over_restart():
            producer = await self.producer(idempotent=True, bulk=True)
            futures = []

            async def send(numbers):
                for number in numbers:
                    futures.append(await producer.send(topic, str(number).encode(), partition=number % 3))

            await send(range(third))
            await futures[0]
            sending = asyncio.ensure_future(send(range(third, 2 * third)))
            await asyncio.get_running_loop().run_in_executor(None, restart)
            await sending
            await send(range(2 * third, count))
            for future in futures:
                await future
            await producer.stop()

        run(over_restart(), 90)

    async def read(self, consumer, count, seconds):
        records = []
        end = time.monotonic() + seconds
        while len(records) < count and time.monotonic() < end:
            polled = await consumer.getmany(timeout_ms=500, max_records=count - len(records))
            for batch in polled.values():
                for got in batch:
                    place = (got.partition, got.offset, got.key, got.value)
                    append_time = got.timestamp_type == 1
                    records.append(Record(*place, got.headers, got.timestamp, append_time))
        return records

    def consume(self, topic, partition, start, count, seconds=20, reset="earliest", committed=False):
        async def from_start():
            isolation = "read_committed" if committed else "read_uncommitted"
            options = {"auto_offset_reset": reset, "isolation_level": isolation}
            consumer = await self.make(AIOKafkaConsumer, enable_auto_commit=False, **options)
            try:
                place = TopicPartition(topic, partition)
                consumer.assign([place])
                if start == "earliest":
                    await consumer.seek_to_beginning(place)
                else:
                    consumer.seek(place, start)
                return await self.read(consumer, count, seconds)
            finally:
                await consumer.stop()

        return run(from_start(), seconds + 20)

    def tail(self, topic, partition, then, count, wait_ms=500):
        async def from_end():
            consumer = await self.make(AIOKafkaConsumer, fetch_max_wait_ms=wait_ms)
            try:
                place = TopicPartition(topic, partition)
                consumer.assign([place])
                await consumer.seek_to_end(place)
                harness.expect(await consumer.position(place) is not None, "no position at the end")
                # `then` runs primitives of its own, which need a loop of their own: another thread.
                await asyncio.get_running_loop().run_in_executor(None, self.elsewhere, then)
                return await self.read(consumer, count, 20)
            finally:
                await consumer.stop()

        return run(from_end())

    @staticmethod
    def elsewhere(then):
        global loop
        outer, loop = loop, asyncio.new_event_loop()
        try:
            then()
        finally:
            loop.close()
            loop = outer

    def with_consumer(self, ask):
        async def once():
            consumer = await self.make(AIOKafkaConsumer)
            try:
                return await ask(consumer)
            finally:
                await consumer.stop()

        return run(once())

    def watermarks(self, topic, partition):
        place = TopicPartition(topic, partition)

        async def ask(consumer):
            low = await consumer.beginning_offsets([place])
            high = await consumer.end_offsets([place])
            return low[place], high[place]

        return self.with_consumer(ask)

    def offset_for_time(self, topic, partition, stamp):
        place = TopicPartition(topic, partition)
        found = self.with_consumer(lambda consumer: consumer.offsets_for_times({place: stamp}))[place]
        return None if found is None else found.offset

    def group_consume(self, topic, group, count, commit):
        async def in_group():
            consumer = AIOKafkaConsumer(
                topic,
                bootstrap_servers=self.bootstrap,
                group_id=group,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
            )
            await consumer.start()
            try:
                records = await self.read(consumer, count, 25)
                if commit:
                    last = records[-1]
                    await consumer.commit({TopicPartition(topic, last.partition): last.offset + 1})
                return records
            finally:
                await consumer.stop()

        return run(in_group())

    def groups(self):
        return [group[0] for group in run(self.admin.list_consumer_groups())]

    def transact(self, topic, identity, contents, commit):
        async def once():
            producer = await self.make(AIOKafkaProducer, transactional_id=identity)
            try:
                await producer.begin_transaction()
                for content in contents:
                    await producer.send_and_wait(topic, content, partition=0)
                await (producer.commit_transaction() if commit else producer.abort_transaction())
            finally:
                await producer.stop()

        run(once())


harness.run(AioKafka)
