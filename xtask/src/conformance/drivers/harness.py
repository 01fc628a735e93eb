"""The operations of the conformance suite for Python clients.

A driver is one process per client. It reads one JSON request per line on standard input
({"operation", "bootstrap", "topic", "partition_of_key"}), performs the operation and ends it with one
line `@@ {"outcome": "passed" | "failed" | "skipped", "detail": ...}`; all else that it prints is
the operation's output. `@@ {"outcome": "restart"}` asks the runner to kill the broker and start it
again; the runner answers with a line when the broker is back.

The operations are written once, here, over the few primitives that each client's adapter offers.
"""

import json
import sys
import time
import traceback

# Kafka's error codes that the operations expect.
OFFSET_OUT_OF_RANGE = 1
UNKNOWN_TOPIC_OR_PARTITION = 3
MESSAGE_TOO_LARGE = 10
INVALID_TOPIC_EXCEPTION = 17
TOPIC_ALREADY_EXISTS = 36
INVALID_PARTITIONS = 37
INVALID_CONFIG = 40

LARGE_BYTES = 900_000
TOO_LARGE_BYTES = 1_200_000
ORDER_RECORDS = 100_000
RESTART_RECORDS = 30_000


class KafkaFailure(Exception):
    """An error that the broker answered, by its code."""

    def __init__(self, code, message=""):
        super().__init__(f"error {code}: {message}")
        self.code = code


class Unsupported(Exception):
    """The client has no such operation."""


class Record:
    """One consumed record."""

    def __init__(self, partition, offset, key, value, headers=(), timestamp=-1, append_time=False):
        self.partition = partition
        self.offset = offset
        self.key = key
        self.value = value
        self.headers = [(name, content) for name, content in (headers or ())]
        self.timestamp = timestamp
        self.append_time = append_time

    def __repr__(self):
        return f"({self.partition}@{self.offset} {self.key!r}={(self.value or b'')[:40]!r} t={self.timestamp})"


class Out:
    """One record to produce."""

    def __init__(self, value, key=None, partition=None, headers=None, timestamp=None):
        self.value = value
        self.key = key
        self.partition = partition
        self.headers = headers
        self.timestamp = timestamp


class Adapter:
    """What a client offers to the operations; an adapter overrides what its client can do."""

    # Whether a legacy change of settings keeps those that it does not name.
    legacy_keeps_others = False

    # Whether asking for a topic's metadata asks for the topic too.
    metadata_creates_topics = False

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap

    def close(self):
        pass

    def __getattr__(self, name):
        raise Unsupported(f"the client offers no {name.replace('_', ' ')}")


def expect(condition, message):
    if not condition:
        raise AssertionError(message)


def expect_equal(what, got, wanted):
    expect(got == wanted, f"{what}: got {got!r}, expected {wanted!r}")


def expect_failure(code, action):
    try:
        result = action()
    except KafkaFailure as failure:
        expect_equal("error code", failure.code, code)
        return
    raise AssertionError(f"expected error {code}, got success: {result!r}")


def eventually(what, probe, seconds=10):
    """A topic's change reaches a broker's metadata a moment after the controller's answer."""
    end = time.monotonic() + seconds
    while True:
        try:
            result = probe()
            if result:
                return result
            last = result
        except KafkaFailure as failure:
            last = failure
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s, last: {last!r}")
        time.sleep(0.05)


def created(client, topic, partitions=1, config=None):
    client.create(topic, partitions, config or {})
    eventually("topic has leaders", lambda: has_leaders(client, topic, partitions))


def has_leaders(client, topic, partitions):
    leaders = client.partitions(topic)
    return len(leaders) == partitions and all(leader >= 0 for leader in leaders.values())


def numbered(count, partition=0, prefix="v"):
    return [Out(f"{prefix}{number}".encode(), partition=partition) for number in range(count)]


def values(records):
    return [record.value for record in records]


def round_trip(client, topic, outs, **options):
    sent = client.produce(topic, outs, **options)
    expect_equal("records acknowledged", len(sent), len(outs))
    if options.get("acks") != 0:
        expect_equal("offsets", [offset for _, offset in sent], list(range(len(outs))))
    records = client.consume(topic, 0, 0, len(outs))
    expect_equal("offsets read", [record.offset for record in records], list(range(len(outs))))
    expect_equal("values", values(records), [out.value for out in outs])
    return records


# --- topics ---------------------------------------------------------------------------------------


def create_topic(client, topic, request):
    created(client, topic)
    expect(topic in client.topics(), "the topic is not listed")


def create_topic_configured(client, topic, request):
    config = {"retention.ms": "3600000", "max.message.bytes": "200000"}
    created(client, topic, 6, config)
    expect_equal("partitions", sorted(client.partitions(topic)), [0, 1, 2, 3, 4, 5])
    described = client.describe_config(topic)
    for name, value in config.items():
        expect_equal(name, described.get(name), value)


def create_topic_twice(client, topic, request):
    created(client, topic)
    expect_failure(TOPIC_ALREADY_EXISTS, lambda: client.create(topic, 1, {}))


def invalid_topic_name(client, topic, request):
    expect_failure(INVALID_TOPIC_EXCEPTION, lambda: client.create("no/such name", 1, {}))
    expect_failure(INVALID_TOPIC_EXCEPTION, lambda: client.create("n" * 250, 1, {}))


def invalid_partition_count(client, topic, request):
    expect_failure(INVALID_PARTITIONS, lambda: client.create(topic, 0, {}))


def unknown_config(client, topic, request):
    expect_failure(INVALID_CONFIG, lambda: client.create(topic, 1, {"no.such.setting": "1"}))
    expect_failure(INVALID_CONFIG, lambda: client.create(topic, 1, {"retention.ms": "soon"}))


def list_topics(client, topic, request):
    names = [f"{topic}-{suffix}" for suffix in "abc"]
    for name in names:
        created(client, name)
    listed = client.topics()
    expect(all(name in listed for name in names), f"not all of {names} are listed")


def describe_topic(client, topic, request):
    created(client, topic, 3)
    leaders = client.partitions(topic)
    _, _, brokers = client.cluster()
    expect_equal("partitions", sorted(leaders), [0, 1, 2])
    ids = [broker for broker, _, _ in brokers]
    expect(all(leader in ids for leader in leaders.values()), f"leaders {leaders} not in {ids}")


def unknown_topic(client, topic, request):
    if client.metadata_creates_topics:
        raise Unsupported("its request for metadata asks for the topic's creation")
    expect_failure(UNKNOWN_TOPIC_OR_PARTITION, lambda: client.partitions(topic))


def auto_create(client, topic, request):
    sent = client.produce(topic, [Out(b"first", partition=0)])
    expect_equal("sent", [tuple(where) for where in sent], [(0, 0)])
    expect_equal("values", values(client.consume(topic, 0, 0, 1)), [b"first"])


def create_partitions(client, topic, request):
    created(client, topic, 2)
    client.add_partitions(topic, 5)
    eventually("5 partitions", lambda: has_leaders(client, topic, 5))
    sent = client.produce(topic, [Out(b"to the new one", partition=4)])
    expect_equal("sent", [tuple(where) for where in sent], [(4, 0)])
    expect_failure(INVALID_PARTITIONS, lambda: client.add_partitions(topic, 3))


def delete_topic(client, topic, request):
    created(client, topic)
    client.produce(topic, numbered(3))
    client.delete(topic)
    eventually("the topic is gone", lambda: topic not in client.topics())
    expect_failure(UNKNOWN_TOPIC_OR_PARTITION, lambda: client.delete(topic))


def recreate_topic(client, topic, request):
    created(client, topic, 2)
    client.produce(topic, numbered(5))
    before = client.topic_id(topic)
    client.delete(topic)
    eventually("the topic is gone", lambda: topic not in client.topics())
    created(client, topic, 1)
    after = client.topic_id(topic)
    expect(before is None or before != after, f"the topic id {before} did not change")
    expect_equal("watermarks", tuple(client.watermarks(topic, 0)), (0, 0))
    round_trip(client, topic, numbered(2, prefix="again"))


def describe_configs(client, topic, request):
    created(client, topic, 1, {"segment.bytes": "16777216"})
    config = client.describe_config(topic)
    expect_equal("segment.bytes", config.get("segment.bytes"), "16777216")
    expect_equal("retention.ms by default", config.get("retention.ms"), "604800000")
    expect_equal("cleanup.policy by default", config.get("cleanup.policy"), "delete")


def alter_configs(client, topic, request):
    created(client, topic, 1, {"retention.ms": "7200000"})
    client.alter_config(topic, {"max.message.bytes": "150000", "retention.ms": "3600000"})
    now = lambda: client.describe_config(topic)
    eventually("set", lambda: now()["max.message.bytes"] == "150000" and now()["retention.ms"] == "3600000")
    expect_failure(MESSAGE_TOO_LARGE, lambda: client.produce(topic, [Out(b"x" * 160_000, partition=0)]))
    client.alter_config(topic, {"max.message.bytes": None})
    eventually("back to default", lambda: now()["max.message.bytes"] == "1048588")
    expect_equal("the other setting stays", now()["retention.ms"], "3600000")
    expect_failure(INVALID_CONFIG, lambda: client.alter_config(topic, {"retention.ms": "soon"}))


def alter_configs_legacy(client, topic, request):
    created(client, topic, 1, {"retention.ms": "7200000"})
    client.alter_config_legacy(topic, {"max.message.bytes": "150000"})
    now = lambda: client.describe_config(topic)
    eventually("set", lambda: now()["max.message.bytes"] == "150000")
    left = "7200000" if client.legacy_keeps_others else "604800000"
    eventually("what is not named", lambda: now()["retention.ms"] == left)


def describe_cluster(client, topic, request):
    cluster_id, controller, brokers = client.cluster()
    expect(cluster_id is None or len(cluster_id) > 0, "an empty cluster id")
    expect(controller in [broker for broker, _, _ in brokers], f"controller {controller} not in {brokers}")
    host, port = request["bootstrap"].rsplit(":", 1)
    expect((host, int(port)) in [(h, p) for _, h, p in brokers], f"{host}:{port} not in {brokers}")


def describe_log_dirs(client, topic, request):
    created(client, topic, 2)
    client.produce(topic, [Out(b"x" * 10_000, partition=1)])
    sizes = client.log_dirs(topic)
    expect_equal("partitions", sorted(sizes), [0, 1])
    expect(sizes[1] >= 10_000 > sizes[0], f"sizes {sizes}")


def delete_records(client, topic, request):
    created(client, topic)
    client.produce(topic, numbered(10))
    expect_equal("low watermark", client.delete_records(topic, {0: 4}), {0: 4})
    expect_equal("watermarks", tuple(client.watermarks(topic, 0)), (4, 10))
    records = client.consume(topic, 0, "earliest", 6)
    expect_equal("offsets", [record.offset for record in records], [4, 5, 6, 7, 8, 9])
    expect_equal("all of it", client.delete_records(topic, {0: -1}), {0: 10})
    expect_failure(OFFSET_OUT_OF_RANGE, lambda: client.delete_records(topic, {0: 11}))


# --- producing ------------------------------------------------------------------------------------


def acks_0(client, topic, request):
    created(client, topic)
    round_trip(client, topic, numbered(20), acks=0)


def acks_1(client, topic, request):
    created(client, topic)
    round_trip(client, topic, numbered(20), acks=1)


def acks_all(client, topic, request):
    created(client, topic)
    round_trip(client, topic, numbered(20), acks=-1)


def murmur2(client, topic, request):
    created(client, topic, 6)
    wanted = request["partition_of_key"]
    client.produce(topic, [Out(key.encode(), key=key.encode()) for key in wanted], partitioner="murmur2")
    got = {}
    for partition in range(6):
        count = sum(1 for of_key in wanted.values() if of_key == partition)
        if count:
            for record in client.consume(topic, partition, 0, count):
                got[record.key.decode()] = partition
    expect_equal("partition of each key", got, wanted)


def headers(client, topic, request):
    created(client, topic)
    wanted = [("a", b"1"), ("a", b"2"), ("empty", b""), ("bytes", bytes(range(256)))]
    records = round_trip(client, topic, [Out(b"v", key=b"k", partition=0, headers=wanted)])
    expect_equal("headers", records[0].headers, wanted)


def null_key_value(client, topic, request):
    created(client, topic)
    outs = [Out(b"value", partition=0), Out(None, key=b"key", partition=0), Out(b"", key=b"", partition=0)]
    records = round_trip(client, topic, outs)
    expect_equal("keys", [record.key for record in records], [None, b"key", b""])


def explicit_partition(client, topic, request):
    created(client, topic, 6)
    sent = client.produce(topic, [Out(b"here", key=b"any", partition=5)])
    expect_equal("sent", [tuple(where) for where in sent], [(5, 0)])
    for partition in range(5):
        expect_equal("watermarks", tuple(client.watermarks(topic, partition)), (0, 0))


def create_time(client, topic, request):
    created(client, topic)
    stamps = [1_700_000_000_000, 1_700_000_000_001, 1_600_000_000_000]
    records = round_trip(client, topic, [Out(b"v", partition=0, timestamp=stamp) for stamp in stamps])
    expect_equal("timestamps", [record.timestamp for record in records], stamps)


def log_append_time(client, topic, request):
    created(client, topic, 1, {"message.timestamp.type": "LogAppendTime"})
    before = time.time() * 1000 - 2000
    outs = [Out(b"v", partition=0, timestamp=1_600_000_000_000) for _ in range(3)]
    for record in round_trip(client, topic, outs):
        expect(before < record.timestamp < time.time() * 1000 + 2000, f"not the time of append: {record}")
        expect(record.append_time, f"the timestamp is not marked as time of append: {record}")


def compressed(codec):
    def operation(client, topic, request):
        created(client, topic)
        outs = [Out((f"record {number} " * 20).encode(), partition=0) for number in range(500)]
        round_trip(client, topic, outs, codec=codec)

    return operation


def large_batch(client, topic, request):
    created(client, topic)
    value = bytes(number * 31 % 251 for number in range(LARGE_BYTES))
    round_trip(client, topic, [Out(value, partition=0)])


def too_large(client, topic, request):
    created(client, topic)
    huge = Out(b"x" * TOO_LARGE_BYTES, partition=0)
    expect_failure(MESSAGE_TOO_LARGE, lambda: client.produce(topic, [huge]))
    round_trip(client, topic, numbered(2))


def idempotent(client, topic, request):
    created(client, topic)
    round_trip(client, topic, numbered(2_000), idempotent=True)


def order_100k(client, topic, request):
    created(client, topic, 6)
    outs = [Out(str(number).encode(), partition=number % 6) for number in range(ORDER_RECORDS)]
    client.produce(topic, outs, acks=-1, bulk=True)
    for partition in range(6):
        wanted = [str(number).encode() for number in range(partition, ORDER_RECORDS, 6)]
        got = values(client.consume(topic, partition, 0, len(wanted), seconds=60))
        expect(got == wanted, f"partition {partition}: order or content differs")


# --- consuming ------------------------------------------------------------------------------------


def from_earliest(client, topic, request):
    created(client, topic)
    client.produce(topic, numbered(10))
    records = client.consume(topic, 0, "earliest", 10)
    expect_equal("offsets", [record.offset for record in records], list(range(10)))


def from_latest(client, topic, request):
    created(client, topic)
    client.produce(topic, numbered(5, prefix="old"))
    records = client.tail(topic, 0, lambda: client.produce(topic, numbered(3, prefix="new")), 3)
    expect_equal("values", values(records), [b"new0", b"new1", b"new2"])


def from_offset(client, topic, request):
    created(client, topic)
    client.produce(topic, numbered(100))
    records = client.consume(topic, 0, 57, 43)
    expect_equal("offsets", [record.offset for record in records], list(range(57, 100)))
    expect_equal("first value", records[0].value, b"v57")


def stamped(client, topic):
    created(client, topic)
    base = 1_700_000_000_000
    for number in range(5):
        client.produce(topic, [Out(b"v", partition=0, timestamp=base + number * 1000)])
    return base


def from_timestamp(client, topic, request):
    base = stamped(client, topic)
    offset = client.offset_for_time(topic, 0, base + 2500)
    expect_equal("offset", offset, 3)
    records = client.consume(topic, 0, offset, 2)
    expect_equal("timestamps", [record.timestamp for record in records], [base + 3000, base + 4000])


def offsets_for_times(client, topic, request):
    base = stamped(client, topic)
    ask = lambda stamp: client.offset_for_time(topic, 0, stamp)
    expect_equal("before all", ask(base - 1), 0)
    expect_equal("exactly", ask(base + 3000), 3)
    expect_equal("between", ask(base + 3001), 4)
    expect_equal("after all", ask(base + 4001), None)


def max_timestamp(client, topic, request):
    created(client, topic)
    base = 1_700_000_000_000
    for plus in (0, 5000, 1000):
        client.produce(topic, [Out(b"v", partition=0, timestamp=base + plus)])
    expect_equal("offset and timestamp", client.max_timestamp(topic, 0), (1, base + 5000))


def watermarks(client, topic, request):
    created(client, topic, 2)
    expect_equal("empty", tuple(client.watermarks(topic, 1)), (0, 0))
    client.produce(topic, numbered(7, partition=1))
    expect_equal("after 7", tuple(client.watermarks(topic, 1)), (0, 7))
    expect_equal("the other", tuple(client.watermarks(topic, 0)), (0, 0))


def out_of_range(client, topic, request):
    created(client, topic)
    client.produce(topic, numbered(4))
    records = client.consume(topic, 0, 1000, 4, reset="earliest")
    expect_equal("offsets after the reset", [record.offset for record in records], [0, 1, 2, 3])


def long_poll(client, topic, request):
    created(client, topic)
    client.produce(topic, numbered(1))
    times = []

    def later():
        time.sleep(1.0)
        times.append(time.monotonic())
        client.produce(topic, numbered(1, prefix="late"))

    records = client.tail(topic, 0, later, 1, wait_ms=20_000)
    expect_equal("values", values(records), [b"late0"])
    waited = time.monotonic() - times[0]
    expect(waited < 5, f"the record came {waited:.1f} s after it was sent: the fetch did not wake")


# --- restart --------------------------------------------------------------------------------------


def restart(client, topic, request):
    created(client, topic, 3)
    client.produce_over_restart(topic, RESTART_RECORDS, ask_restart)
    for partition in range(3):
        wanted = [str(number).encode() for number in range(partition, RESTART_RECORDS, 3)]
        expect_equal("watermarks", tuple(client.watermarks(topic, partition)), (0, len(wanted)))
        got = values(client.consume(topic, partition, 0, len(wanted), seconds=60))
        expect(got == wanted, f"partition {partition}: lost, doubled or out of order")


def ask_restart():
    say({"outcome": "restart"})
    sys.stdin.readline()


# --- groups and transactions ----------------------------------------------------------------------


def subscribe(client, topic, request):
    created(client, topic, 3)
    client.produce(topic, [Out(str(number).encode(), partition=number % 3) for number in range(30)])
    records = client.group_consume(topic, f"{topic}-group", 30, commit=False)
    expect_equal("values", sorted(int(record.value) for record in records), list(range(30)))


def commit_resume(client, topic, request):
    created(client, topic)
    client.produce(topic, numbered(20))
    first = client.group_consume(topic, f"{topic}-group", 8, commit=True)
    expect_equal("first offsets", [record.offset for record in first], list(range(8)))
    rest = client.group_consume(topic, f"{topic}-group", 12, commit=True)
    expect_equal("offsets after the commit", [record.offset for record in rest], list(range(8, 20)))


def list_groups(client, topic, request):
    created(client, topic)
    client.produce(topic, numbered(1))
    client.group_consume(topic, f"{topic}-group", 1, commit=True)
    expect(f"{topic}-group" in client.groups(), "the group is not listed")


def transaction(client, topic, request):
    created(client, topic)
    client.transact(topic, f"{topic}-id", [b"aborted"], commit=False)
    client.transact(topic, f"{topic}-id", [b"one", b"two"], commit=True)
    expect_equal("committed", values(client.consume(topic, 0, 0, 2, committed=True)), [b"one", b"two"])


OPERATIONS = {
    name: function
    for name, function in globals().items()
    if getattr(function, "__code__", None) is not None
    and function.__code__.co_varnames[:3] == ("client", "topic", "request")
}
OPERATIONS.update({codec: compressed(codec) for codec in ("gzip", "snappy", "lz4", "zstd")})


def say(answer):
    print("@@ " + json.dumps(answer), flush=True)


def run(adapter):
    """Serves requests until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        client = None
        try:
            operation = OPERATIONS.get(request["operation"])
            if operation is None:
                raise Unsupported("the driver has no such operation")
            client = adapter(request["bootstrap"])
            operation(client, request["topic"], request)
            answer = {"outcome": "passed"}
        except Unsupported as reason:
            answer = {"outcome": "skipped", "detail": str(reason)}
        except BaseException as error:  # a client may raise anything; the runner needs an answer
            traceback.print_exc()
            answer = {"outcome": "failed", "detail": f"{type(error).__name__}: {error}"[:600]}
        try:
            if client is not None:
                client.close()
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        say(answer)
