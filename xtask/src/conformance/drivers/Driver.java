// The official Java client for the conformance suite. Same protocol and same operations as
// harness.py: one JSON request per line in, the operation's output and one `@@ {...}` line out.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Driver {
    static final BufferedReader INPUT = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    static final ObjectMapper JSON = new ObjectMapper();
    static final long BASE_TIME = 1_700_000_000_000L;
    static final int ORDER_RECORDS = 100_000;
    static final int RESTART_RECORDS = 30_000;

    interface Operation {
        void run() throws Exception;
    }

    static final class Unsupported extends RuntimeException {
        Unsupported(String reason) {
            super(reason);
        }
    }

    final String bootstrap;
    final String topic;
    final JsonNode request;
    final Admin admin;

    Driver(JsonNode request) {
        this.request = request;
        bootstrap = request.get("bootstrap").asText();
        topic = request.get("topic").asText();
        admin = Admin.create(common());
    }

    public static void main(String[] arguments) throws Exception {
        for (String line = INPUT.readLine(); line != null; line = INPUT.readLine()) {
            JsonNode request = JSON.readTree(line);
            Map<String, String> answer = new LinkedHashMap<>();
            Driver driver = null;
            try {
                driver = new Driver(request);
                driver.operation(request.get("operation").asText()).run();
                answer.put("outcome", "passed");
            } catch (Unsupported reason) {
                answer.put("outcome", "skipped");
                answer.put("detail", reason.getMessage());
            } catch (Throwable error) {
                error.printStackTrace(System.out);
                answer.put("outcome", "failed");
                answer.put("detail", error.toString());
            }
            if (driver != null) {
                driver.admin.close(Duration.ofSeconds(5));
            }
            say(answer);
        }
    }

    static void say(Map<String, String> answer) throws Exception {
        System.out.println("@@ " + JSON.writeValueAsString(answer));
        System.out.flush();
    }

    Operation operation(String name) {
        return switch (name) {
            case "create_topic" -> this::createTopic;
            case "create_topic_configured" -> this::createTopicConfigured;
            case "create_topic_twice" -> () -> {
                created(topic, 1, Map.of());
                refused(TopicExistsException.class, () -> create(topic, 1, Map.of()));
            };
            case "invalid_topic_name" -> () -> {
                refused(InvalidTopicException.class, () -> create("no/such name", 1, Map.of()));
                refused(InvalidTopicException.class, () -> create("n".repeat(250), 1, Map.of()));
            };
            case "invalid_partition_count" -> () -> refused(InvalidPartitionsException.class, () -> create(topic, 0, Map.of()));
            case "unknown_config" -> () -> {
                refused(InvalidConfigurationException.class, () -> create(topic, 1, Map.of("no.such.setting", "1")));
                refused(InvalidConfigurationException.class, () -> create(topic, 1, Map.of("retention.ms", "soon")));
            };
            case "list_topics" -> this::listTopics;
            case "describe_topic" -> this::describeTopic;
            case "unknown_topic" -> () -> refused(UnknownTopicOrPartitionException.class, () -> described(topic));
            case "auto_create" -> () -> {
                RecordMetadata sent = produce(numbered(1, 0, "first"), Map.of()).get(0);
                equal("offset", sent.offset(), 0L);
                equal("values", values(consume(0, 0L, 1)), List.of("first0"));
            };
            case "create_partitions" -> this::createPartitions;
            case "delete_topic" -> this::deleteTopic;
            case "recreate_topic" -> this::recreateTopic;
            case "describe_configs" -> this::describeConfigs;
            case "alter_configs" -> this::alterConfigs;
            case "alter_configs_legacy" -> () -> {
                throw new Unsupported("the Java client 4 has no AlterConfigs");
            };
            case "describe_cluster" -> this::describeCluster;
            case "describe_log_dirs" -> this::describeLogDirs;
            case "delete_records" -> this::deleteRecords;
            case "acks_0" -> () -> plainRoundTrip(Map.of("acks", "0", "enable.idempotence", "false"));
            case "acks_1" -> () -> plainRoundTrip(Map.of("acks", "1", "enable.idempotence", "false"));
            case "acks_all" -> () -> plainRoundTrip(Map.of("acks", "all", "enable.idempotence", "false"));
            case "murmur2" -> this::murmur2;
            case "headers" -> this::headers;
            case "null_key_value" -> this::nullKeyValue;
            case "explicit_partition" -> this::explicitPartition;
            case "create_time" -> this::createTime;
            case "log_append_time" -> this::logAppendTime;
            case "gzip", "snappy", "lz4", "zstd" -> () -> compressed(name);
            case "large_batch" -> () -> {
                created(topic, 1, Map.of());
                byte[] value = new byte[900_000];
                for (int at = 0; at < value.length; at++) {
                    value[at] = (byte) (at * 31L % 251);
                }
                roundTrip(List.of(new ProducerRecord<>(topic, 0, null, value)), Map.of());
            };
            case "too_large" -> () -> {
                created(topic, 1, Map.of());
                var huge = new ProducerRecord<byte[], byte[]>(topic, 0, null, new byte[1_200_000]);
                refused(RecordTooLargeException.class, () -> produce(List.of(huge), Map.of()));
                roundTrip(numbered(2, 0, "v"), Map.of());
            };
            case "idempotent" -> () -> {
                created(topic, 1, Map.of());
                roundTrip(numbered(2000, 0, "v"), Map.of("enable.idempotence", "true"));
            };
            case "order_100k" -> this::order;
            case "from_earliest" -> () -> {
                created(topic, 1, Map.of());
                produce(numbered(10, 0, "v"), Map.of());
                equal("values", values(consume(0, null, 10)).get(0), "v0");
            };
            case "from_latest" -> () -> {
                created(topic, 1, Map.of());
                produce(numbered(5, 0, "old"), Map.of());
                var records = tail(() -> produce(numbered(3, 0, "new"), Map.of()), 3, Map.of());
                equal("values", values(records), List.of("new0", "new1", "new2"));
            };
            case "from_offset" -> () -> {
                created(topic, 1, Map.of());
                produce(numbered(100, 0, "v"), Map.of());
                var records = consume(0, 57L, 43);
                equal("first", values(records).get(0), "v57");
                equal("count", records.size(), 43);
            };
            case "from_timestamp" -> this::fromTimestamp;
            case "offsets_for_times" -> this::offsetsForTimes;
            case "max_timestamp" -> this::maxTimestamp;
            case "watermarks" -> () -> {
                created(topic, 2, Map.of());
                equal("empty", watermarks(1), List.of(0L, 0L));
                produce(numbered(7, 1, "v"), Map.of());
                equal("after 7", watermarks(1), List.of(0L, 7L));
                equal("the other", watermarks(0), List.of(0L, 0L));
            };
            case "out_of_range" -> () -> {
                created(topic, 1, Map.of());
                produce(numbered(4, 0, "v"), Map.of());
                var records = consume(0, 1000L, 4, Map.of("auto.offset.reset", "earliest"));
                equal("values after the reset", values(records), List.of("v0", "v1", "v2", "v3"));
            };
            case "long_poll" -> this::longPoll;
            case "restart" -> this::restart;
            case "subscribe" -> this::subscribe;
            case "commit_resume" -> this::commitResume;
            case "list_groups" -> this::listGroups;
            case "transaction" -> this::transaction;
            default -> throw new Unsupported("the driver has no such operation");
        };
    }

    // --- topics ------------------------------------------------------------------------------------

    void createTopic() throws Exception {
        created(topic, 1, Map.of());
        expect(topics().contains(topic), "the topic is not listed");
    }

    void createTopicConfigured() throws Exception {
        var wanted = Map.of("retention.ms", "3600000", "max.message.bytes", "200000");
        created(topic, 6, wanted);
        equal("partitions", described(topic).partitions().size(), 6);
        var config = config();
        for (var entry : wanted.entrySet()) {
            equal(entry.getKey(), config.get(entry.getKey()), entry.getValue());
        }
    }

    void listTopics() throws Exception {
        var names = List.of(topic + "-a", topic + "-b", topic + "-c");
        for (String name : names) {
            created(name, 1, Map.of());
        }
        expect(topics().containsAll(names), "not all of " + names + " are listed");
    }

    void describeTopic() throws Exception {
        created(topic, 3, Map.of());
        var description = described(topic);
        equal("partitions", description.partitions().size(), 3);
        var nodes = answer(admin.describeCluster().nodes());
        for (TopicPartitionInfo partition : description.partitions()) {
            expect(nodes.contains(partition.leader()), "leader " + partition.leader() + " not in " + nodes);
            equal("replicas", partition.replicas().size(), 1);
            equal("in sync", partition.isr(), partition.replicas());
        }
    }

    void createPartitions() throws Exception {
        created(topic, 2, Map.of());
        answer(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all());
        eventually("5 partitions", () -> hasLeaders(topic, 5));
        equal("offset", produce(numbered(1, 4, "new"), Map.of()).get(0).offset(), 0L);
        refused(InvalidPartitionsException.class,
            () -> answer(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all()));
    }

    void deleteTopic() throws Exception {
        created(topic, 1, Map.of());
        produce(numbered(3, 0, "v"), Map.of());
        answer(admin.deleteTopics(List.of(topic)).all());
        eventually("the topic is gone", () -> !topics().contains(topic));
        refused(UnknownTopicOrPartitionException.class, () -> answer(admin.deleteTopics(List.of(topic)).all()));
    }

    void recreateTopic() throws Exception {
        created(topic, 2, Map.of());
        produce(numbered(5, 0, "v"), Map.of());
        var before = described(topic).topicId();
        answer(admin.deleteTopics(List.of(topic)).all());
        eventually("the topic is gone", () -> !topics().contains(topic));
        created(topic, 1, Map.of());
        var after = described(topic).topicId();
        expect(!before.equals(after), "the topic id " + before + " did not change");
        equal("watermarks", watermarks(0), List.of(0L, 0L));
        roundTrip(numbered(2, 0, "again"), Map.of());
    }

    void describeConfigs() throws Exception {
        created(topic, 1, Map.of("segment.bytes", "16777216"));
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var entries = answer(admin.describeConfigs(List.of(resource)).all()).get(resource);
        equal("segment.bytes", entries.get("segment.bytes").value(), "16777216");
        equal("its source", entries.get("segment.bytes").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        equal("retention.ms", entries.get("retention.ms").value(), "604800000");
        expect(entries.get("retention.ms").isDefault(), "retention.ms is not marked as default");
        equal("its type", entries.get("retention.ms").type(), ConfigEntry.ConfigType.LONG);
        equal("cleanup.policy", entries.get("cleanup.policy").value(), "delete");
        var node = answer(admin.describeCluster().nodes()).iterator().next();
        var broker = new ConfigResource(ConfigResource.Type.BROKER, node.idString());
        expect(answer(admin.describeConfigs(List.of(broker)).all()).containsKey(broker), "no broker settings");
    }

    void alterConfigs() throws Exception {
        created(topic, 1, Map.of("retention.ms", "7200000"));
        alter(op("max.message.bytes", "150000", AlterConfigOp.OpType.SET), op("retention.ms", "3600000", AlterConfigOp.OpType.SET));
        eventually("set", () -> config().get("max.message.bytes").equals("150000"));
        equal("retention.ms", config().get("retention.ms"), "3600000");
        var huge = new ProducerRecord<byte[], byte[]>(topic, 0, null, new byte[160_000]);
        refused(RecordTooLargeException.class, () -> produce(List.of(huge), Map.of()));
        alter(op("max.message.bytes", null, AlterConfigOp.OpType.DELETE));
        eventually("back to default", () -> config().get("max.message.bytes").equals("1048588"));
        equal("the other setting stays", config().get("retention.ms"), "3600000");
        refused(InvalidConfigurationException.class, () -> alter(op("retention.ms", "soon", AlterConfigOp.OpType.SET)));
    }

    void describeCluster() throws Exception {
        DescribeClusterResult cluster = admin.describeCluster();
        Collection<Node> nodes = answer(cluster.nodes());
        expect(nodes.contains(answer(cluster.controller())), "the controller is not among " + nodes);
        expect(!answer(cluster.clusterId()).isEmpty(), "an empty cluster id");
        expect(nodes.stream().anyMatch(node -> bootstrap.equals(node.host() + ":" + node.port())), bootstrap + " not in " + nodes);
    }

    void describeLogDirs() throws Exception {
        created(topic, 2, Map.of());
        produce(List.of(new ProducerRecord<>(topic, 1, null, new byte[10_000])), Map.of());
        var ids = answer(admin.describeCluster().nodes()).stream().map(Node::id).toList();
        var sizes = new TreeMap<Integer, Long>();
        for (Map<String, LogDirDescription> dirs : answer(admin.describeLogDirs(ids).allDescriptions()).values()) {
            for (LogDirDescription dir : dirs.values()) {
                expect(dir.error() == null, "log directory: " + dir.error());
                dir.replicaInfos().forEach((place, info) -> {
                    if (place.topic().equals(topic)) {
                        sizes.put(place.partition(), info.size());
                    }
                });
            }
        }
        equal("partitions", sizes.keySet(), Set.of(0, 1));
        expect(sizes.get(1) >= 10_000 && sizes.get(0) < 10_000, "sizes " + sizes);
    }

    void deleteRecords() throws Exception {
        created(topic, 1, Map.of());
        produce(numbered(10, 0, "v"), Map.of());
        equal("low watermark", deleteBefore(4), 4L);
        equal("watermarks", watermarks(0), List.of(4L, 10L));
        equal("first value", values(consume(0, null, 6)).get(0), "v4");
        equal("all of it", deleteBefore(-1), 10L);
        refused(OffsetOutOfRangeException.class, () -> deleteBefore(11));
    }

    // --- producing ---------------------------------------------------------------------------------

    void plainRoundTrip(Map<String, String> options) throws Exception {
        created(topic, 1, Map.of());
        roundTrip(numbered(20, 0, "v"), options);
    }

    void murmur2() throws Exception {
        created(topic, 6, Map.of());
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        Map<String, Integer> wanted = new TreeMap<>();
        request.get("partition_of_key").properties().forEach(entry -> {
            wanted.put(entry.getKey(), entry.getValue().asInt());
            records.add(new ProducerRecord<>(topic, bytes(entry.getKey()), bytes(entry.getKey())));
        });
        produce(records, Map.of());
        Map<String, Integer> got = new TreeMap<>();
        for (int partition = 0; partition < 6; partition++) {
            int count = java.util.Collections.frequency(wanted.values(), partition);
            for (var record : count == 0 ? List.<ConsumerRecord<byte[], byte[]>>of() : consume(partition, 0L, count)) {
                got.put(text(record.key()), partition);
            }
        }
        equal("partition of each key", got, wanted);
    }

    void headers() throws Exception {
        created(topic, 1, Map.of());
        byte[] all = new byte[256];
        for (int at = 0; at < 256; at++) {
            all[at] = (byte) at;
        }
        List<Header> wanted = List.of(new RecordHeader("a", bytes("1")), new RecordHeader("a", bytes("2")),
            new RecordHeader("empty", new byte[0]), new RecordHeader("null", (byte[]) null), new RecordHeader("bytes", all));
        var records = roundTrip(List.of(new ProducerRecord<>(topic, 0, bytes("k"), bytes("v"), wanted)), Map.of());
        equal("headers", Arrays.asList(records.get(0).headers().toArray()), wanted);
    }

    void nullKeyValue() throws Exception {
        created(topic, 1, Map.of());
        var records = roundTrip(List.of(new ProducerRecord<>(topic, 0, null, bytes("value")),
            new ProducerRecord<>(topic, 0, bytes("key"), null), new ProducerRecord<>(topic, 0, null, null),
            new ProducerRecord<>(topic, 0, new byte[0], new byte[0])), Map.of());
        expect(records.get(0).key() == null && records.get(1).value() == null, "null became something");
        expect(records.get(2).key() == null && records.get(2).value() == null, "null became something");
        equal("empty key", records.get(3).key().length, 0);
    }

    void explicitPartition() throws Exception {
        created(topic, 6, Map.of());
        var sent = produce(List.of(new ProducerRecord<>(topic, 5, bytes("any"), bytes("here"))), Map.of()).get(0);
        equal("partition", sent.partition(), 5);
        for (int partition = 0; partition < 5; partition++) {
            equal("watermarks", watermarks(partition), List.of(0L, 0L));
        }
    }

    void createTime() throws Exception {
        created(topic, 1, Map.of());
        List<Long> stamps = List.of(BASE_TIME, BASE_TIME + 1, 1_600_000_000_000L);
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        stamps.forEach(stamp -> records.add(new ProducerRecord<>(topic, 0, stamp, null, bytes("v"))));
        equal("timestamps", roundTrip(records, Map.of()).stream().map(ConsumerRecord::timestamp).toList(), stamps);
    }

    void logAppendTime() throws Exception {
        created(topic, 1, Map.of("message.timestamp.type", "LogAppendTime"));
        long before = System.currentTimeMillis() - 2000;
        var sent = produce(List.of(new ProducerRecord<>(topic, 0, BASE_TIME, null, bytes("v"))), Map.of()).get(0);
        var record = consume(0, 0L, 1).get(0);
        equal("kind", record.timestampType(), TimestampType.LOG_APPEND_TIME);
        expect(record.timestamp() > before, "not the time of append: " + record.timestamp());
        equal("the answer's timestamp", sent.timestamp(), record.timestamp());
    }

    void compressed(String codec) throws Exception {
        created(topic, 1, Map.of());
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < 500; number++) {
            records.add(new ProducerRecord<>(topic, 0, null, bytes(("record " + number + " ").repeat(20))));
        }
        roundTrip(records, Map.of("compression.type", codec));
    }

    void order() throws Exception {
        created(topic, 6, Map.of());
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < ORDER_RECORDS; number++) {
            records.add(new ProducerRecord<>(topic, number % 6, null, bytes(Integer.toString(number))));
        }
        produce(records, Map.of());
        checkNumbers(6, ORDER_RECORDS);
    }

    void checkNumbers(int partitions, int count) throws Exception {
        for (int partition = 0; partition < partitions; partition++) {
            List<String> wanted = new ArrayList<>();
            for (int number = partition; number < count; number += partitions) {
                wanted.add(Integer.toString(number));
            }
            equal("watermarks", watermarks(partition), List.of(0L, (long) wanted.size()));
            expect(values(consume(partition, 0L, wanted.size())).equals(wanted),
                "partition " + partition + ": lost, doubled or out of order");
        }
    }

    // --- consuming ---------------------------------------------------------------------------------

    void stamped() throws Exception {
        created(topic, 1, Map.of());
        for (int number = 0; number < 5; number++) {
            produce(List.of(new ProducerRecord<>(topic, 0, BASE_TIME + number * 1000L, null, bytes("v"))), Map.of());
        }
    }

    void fromTimestamp() throws Exception {
        stamped();
        OffsetAndTimestamp found = offsetForTime(BASE_TIME + 2500);
        equal("offset", found.offset(), 3L);
        equal("its timestamp", found.timestamp(), BASE_TIME + 3000);
        equal("count", consume(0, found.offset(), 2).size(), 2);
    }

    void offsetsForTimes() throws Exception {
        stamped();
        equal("before all", offsetForTime(BASE_TIME - 1).offset(), 0L);
        equal("exactly", offsetForTime(BASE_TIME + 3000).offset(), 3L);
        equal("between", offsetForTime(BASE_TIME + 3001).offset(), 4L);
        equal("after all", offsetForTime(BASE_TIME + 4001), null);
    }

    void maxTimestamp() throws Exception {
        created(topic, 1, Map.of());
        for (long plus : new long[] {0, 5000, 1000}) {
            produce(List.of(new ProducerRecord<>(topic, 0, BASE_TIME + plus, null, bytes("v"))), Map.of());
        }
        ListOffsetsResultInfo found = answer(admin.listOffsets(Map.of(place(0), OffsetSpec.maxTimestamp())).partitionResult(place(0)));
        equal("offset", found.offset(), 1L);
        equal("timestamp", found.timestamp(), BASE_TIME + 5000);
        equal("earliest", answer(admin.listOffsets(Map.of(place(0), OffsetSpec.earliest())).partitionResult(place(0))).offset(), 0L);
        equal("latest", answer(admin.listOffsets(Map.of(place(0), OffsetSpec.latest())).partitionResult(place(0))).offset(), 3L);
    }

    void longPoll() throws Exception {
        created(topic, 1, Map.of());
        produce(numbered(1, 0, "v"), Map.of());
        long[] sentAt = new long[1];
        var records = tail(() -> {
            Thread.sleep(1000);
            sentAt[0] = System.nanoTime();
            produce(numbered(1, 0, "late"), Map.of());
        }, 1, Map.of("fetch.max.wait.ms", "20000"));
        equal("values", values(records), List.of("late0"));
        long waitedMs = (System.nanoTime() - sentAt[0]) / 1_000_000;
        expect(waitedMs < 5000, "the record came " + waitedMs + " ms after it was sent: the fetch did not wake");
    }

    void restart() throws Exception {
        created(topic, 3, Map.of());
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = producer(Map.of("enable.idempotence", "true", "delivery.timeout.ms", "60000"))) {
            int third = RESTART_RECORDS / 3;
            for (int number = 0; number < RESTART_RECORDS; number++) {
                sent.add(producer.send(new ProducerRecord<>(topic, number % 3, null, bytes(Integer.toString(number)))));
                if (number == third) {
                    sent.get(0).get(20, TimeUnit.SECONDS);
                }
                if (number == 2 * third) {
                    say(Map.of("outcome", "restart"));
                    INPUT.readLine();
                }
            }
            for (Future<RecordMetadata> future : sent) {
                answer(future);
            }
        }
        checkNumbers(3, RESTART_RECORDS);
    }

    // --- groups and transactions --------------------------------------------------------------------

    void subscribe() throws Exception {
        created(topic, 3, Map.of());
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < 30; number++) {
            records.add(new ProducerRecord<>(topic, number % 3, null, bytes(Integer.toString(number))));
        }
        produce(records, Map.of());
        Set<String> got = new TreeSet<>(values(groupConsume(30)));
        equal("distinct values", got.size(), 30);
    }

    void commitResume() throws Exception {
        created(topic, 1, Map.of());
        produce(numbered(20, 0, "v"), Map.of());
        equal("first", values(groupConsume(8)).get(7), "v7");
        equal("after the commit", values(groupConsume(12)).get(0), "v8");
    }

    void listGroups() throws Exception {
        created(topic, 1, Map.of());
        produce(numbered(1, 0, "v"), Map.of());
        groupConsume(1);
        expect(answer(admin.listGroups().all()).stream().anyMatch(group -> group.groupId().equals(topic + "-group")), "not listed");
    }

    void transaction() throws Exception {
        created(topic, 1, Map.of());
        for (boolean commit : new boolean[] {false, true}) {
            try (var producer = producer(Map.of("transactional.id", topic + "-id"))) {
                producer.initTransactions();
                producer.beginTransaction();
                for (var record : numbered(2, 0, commit ? "yes" : "no")) {
                    producer.send(record);
                }
                if (commit) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
        }
        equal("committed", values(consume(0, 0L, 2, Map.of("isolation.level", "read_committed"))), List.of("yes0", "yes1"));
    }

    List<ConsumerRecord<byte[], byte[]>> groupConsume(int count) throws Exception {
        try (var consumer = consumer(Map.of("group.id", topic + "-group", "auto.offset.reset", "earliest"))) {
            consumer.subscribe(List.of(topic));
            var records = read(consumer, count, 25);
            Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
            records.forEach(record -> next.put(place(record.partition()), new OffsetAndMetadata(record.offset() + 1)));
            consumer.commitSync(next);
            return records;
        }
    }

    // --- primitives --------------------------------------------------------------------------------

    Properties common() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("default.api.timeout.ms", "20000");
        properties.put("request.timeout.ms", "15000");
        return properties;
    }

    static <T> T answer(Future<T> future) throws Exception {
        try {
            return future.get(60, TimeUnit.SECONDS);
        } catch (ExecutionException error) {
            throw error.getCause() instanceof Exception cause ? cause : error;
        }
    }

    void create(String name, int partitions, Map<String, String> config) throws Exception {
        answer(admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1).configs(config))).all());
    }

    void created(String name, int partitions, Map<String, String> config) throws Exception {
        create(name, partitions, config);
        eventually("topic has leaders", () -> hasLeaders(name, partitions));
    }

    boolean hasLeaders(String name, int partitions) throws Exception {
        var all = described(name).partitions();
        return all.size() == partitions && all.stream().allMatch(partition -> partition.leader() != null);
    }

    TopicDescription described(String name) throws Exception {
        return answer(admin.describeTopics(List.of(name)).allTopicNames()).get(name);
    }

    Set<String> topics() throws Exception {
        return answer(admin.listTopics().names());
    }

    Map<String, String> config() throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Map<String, String> values = new HashMap<>();
        answer(admin.describeConfigs(List.of(resource)).all()).get(resource).entries().forEach(entry -> values.put(entry.name(), entry.value()));
        return values;
    }

    static AlterConfigOp op(String name, String value, AlterConfigOp.OpType kind) {
        return new AlterConfigOp(new ConfigEntry(name, value), kind);
    }

    void alter(AlterConfigOp... operations) throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        answer(admin.incrementalAlterConfigs(Map.of(resource, List.of(operations))).all());
    }

    long deleteBefore(long offset) throws Exception {
        return answer(admin.deleteRecords(Map.of(place(0), RecordsToDelete.beforeOffset(offset))).lowWatermarks().get(place(0))).lowWatermark();
    }

    TopicPartition place(int partition) {
        return new TopicPartition(topic, partition);
    }

    List<ProducerRecord<byte[], byte[]>> numbered(int count, int partition, String prefix) {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            records.add(new ProducerRecord<>(topic, partition, null, bytes(prefix + number)));
        }
        return records;
    }

    KafkaProducer<byte[], byte[]> producer(Map<String, String> options) {
        Properties properties = common();
        properties.put("max.request.size", "2000000");
        properties.put("linger.ms", "10");
        properties.putAll(options);
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    List<RecordMetadata> produce(List<ProducerRecord<byte[], byte[]>> records, Map<String, String> options) throws Exception {
        try (var producer = producer(options)) {
            List<Future<RecordMetadata>> futures = new ArrayList<>();
            for (var record : records) {
                futures.add(producer.send(record));
            }
            List<RecordMetadata> sent = new ArrayList<>();
            for (var future : futures) {
                sent.add(answer(future));
            }
            return sent;
        }
    }

    List<ConsumerRecord<byte[], byte[]>> roundTrip(List<ProducerRecord<byte[], byte[]>> records, Map<String, String> options) throws Exception {
        var sent = produce(records, options);
        var read = consume(0, 0L, records.size());
        equal("records read", read.size(), records.size());
        for (int at = 0; at < read.size(); at++) {
            if (!"0".equals(options.get("acks"))) {
                equal("offset acknowledged", sent.get(at).offset(), (long) at);
            }
            equal("offset", read.get(at).offset(), (long) at);
            expect(Arrays.equals(read.get(at).value(), records.get(at).value()), "value " + at + " differs");
        }
        return read;
    }

    KafkaConsumer<byte[], byte[]> consumer(Map<String, String> options) {
        Properties properties = common();
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "none");
        properties.putAll(options);
        properties.put("request.timeout.ms", "40000");
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> consumer, int count, int seconds) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        while (records.size() < count && System.nanoTime() < end) {
            consumer.poll(Duration.ofMillis(500)).forEach(records::add);
        }
        return records.size() > count ? records.subList(0, count) : records;
    }

    /** Reads `count` records from `start` on; from the start of the log when that is null. */
    List<ConsumerRecord<byte[], byte[]>> consume(int partition, Long start, int count) throws Exception {
        return consume(partition, start, count, Map.of());
    }

    List<ConsumerRecord<byte[], byte[]>> consume(int partition, Long start, int count, Map<String, String> options) throws Exception {
        try (var consumer = consumer(options)) {
            consumer.assign(List.of(place(partition)));
            if (start == null) {
                consumer.seekToBeginning(List.of(place(partition)));
            } else {
                consumer.seek(place(partition), start);
            }
            return read(consumer, count, 20);
        }
    }

    List<ConsumerRecord<byte[], byte[]>> tail(Operation then, int count, Map<String, String> options) throws Exception {
        var consumer = consumer(options);
        try {
            consumer.assign(List.of(place(0)));
            consumer.seekToEnd(List.of(place(0)));
            consumer.position(place(0));
            consumer.poll(Duration.ofMillis(200));
            then.run();
            return read(consumer, count, 20);
        } finally {
            // A close with patience would wait for the long poll that is already out again.
            consumer.close(CloseOptions.timeout(Duration.ZERO));
        }
    }

    List<Long> watermarks(int partition) {
        try (var consumer = consumer(Map.of())) {
            var at = List.of(place(partition));
            return List.of(consumer.beginningOffsets(at).get(at.get(0)), consumer.endOffsets(at).get(at.get(0)));
        }
    }

    OffsetAndTimestamp offsetForTime(long stamp) {
        try (var consumer = consumer(Map.of())) {
            return consumer.offsetsForTimes(Map.of(place(0), stamp)).get(place(0));
        }
    }

    // --- claims ------------------------------------------------------------------------------------

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    static List<String> values(List<ConsumerRecord<byte[], byte[]>> records) {
        return records.stream().map(record -> text(record.value())).toList();
    }

    static void expect(boolean condition, String message) {
        if (!condition) {
            throw new AssertionError(message);
        }
    }

    static void equal(String what, Object got, Object wanted) {
        expect(Objects.equals(got, wanted), what + ": got " + got + ", expected " + wanted);
    }

    static void refused(Class<? extends Exception> wanted, Operation action) {
        try {
            action.run();
        } catch (Exception error) {
            // By class and no subclass: the answer "unsupported version" is a kind of "invalid configuration".
            expect(wanted == error.getClass(), "expected " + wanted.getSimpleName() + ", got " + error);
            return;
        }
        throw new AssertionError("expected " + wanted.getSimpleName() + ", got success");
    }

    /** A topic's change reaches a broker's metadata a moment after the controller's answer. */
    static void eventually(String what, Callable<Boolean> probe) throws Exception {
        long end = System.nanoTime() + 10_000_000_000L;
        Object last = false;
        while (System.nanoTime() < end) {
            try {
                if (probe.call()) {
                    return;
                }
            } catch (Exception error) {
                last = error;
            }
            Thread.sleep(50);
        }
        throw new AssertionError(what + ": not within 10 s, last: " + last);
    }
}
