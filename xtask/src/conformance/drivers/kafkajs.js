// kafkajs for the conformance suite. Same protocol and same operations as harness.py: one JSON
// request per line in, the operation's output and one `@@ {...}` line out.
//
// kafkajs consumes only in groups. Where the suite reads a partition without a group, the records
// come through kafkajs's own cluster and broker objects: the code below its consumer.

const assert = require('assert')
const readline = require('readline')
const { createRequire } = require('module')

process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'
// The packages lie where the runner installed them, not beside this file.
const installed = createRequire(process.cwd() + '/')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = installed('kafkajs')
const Cluster = installed('kafkajs/src/cluster')
const Batch = installed('kafkajs/src/consumer/batch')
const { createLogger } = installed('kafkajs/src/loggers')
const consoleLogger = installed('kafkajs/src/loggers/console')
const socketFactory = installed('kafkajs/src/network/socketFactory')
const lz4 = installed('lz4js')
const xxh32 = installed('lz4js/xxh32')

CompressionCodecs[CompressionTypes.Snappy] = installed('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  // Kafka takes only frames whose header says that the blocks are independent. lz4js does not set
  // that bit; a frame of one block (up to 4 MiB) is so all the same.
  compress: async encoder => {
    const frame = Buffer.from(lz4.compress(encoder.buffer))
    frame[4] |= 0x20
    frame[6] = (xxh32.hash(0, frame, 4, 2) >> 8) & 0xff
    return frame
  },
  decompress: async buffer => Buffer.from(lz4.decompress(buffer)),
})
let zstd
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})

const OFFSET_OUT_OF_RANGE = 1
const UNKNOWN_TOPIC_OR_PARTITION = 3
const MESSAGE_TOO_LARGE = 10
const INVALID_TOPIC_EXCEPTION = 17
const INVALID_PARTITIONS = 37
const INVALID_CONFIG = 40
const BASE_TIME = 1700000000000
const ORDER_RECORDS = 100000
const RESTART_RECORDS = 30000

class Unsupported extends Error {}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const say = answer => process.stdout.write('@@ ' + JSON.stringify(answer) + '\n')
const range = (from, to, step = 1) =>
  Array.from({ length: Math.ceil((to - from) / step) }, (_, index) => from + index * step)
const numbered = (count, prefix = 'v', partition = 0) =>
  range(0, count).map(number => ({ value: prefix + number, partition }))
const values = messages => messages.map(({ value }) => (value === null ? null : value.toString()))

/** The error that kafkajs wrapped into `error`. */
function inside(error) {
  const [partition] = error.partitions || []
  return error.cause || error.originalError || (error.errors && error.errors[0]) || (partition && partition.error)
}

/** The broker's error code inside whatever kafkajs wrapped around it. */
function codeOf(error) {
  for (let at = error; at; at = inside(at)) {
    if (typeof at.code === 'number') return at.code
  }
  return undefined
}

async function refused(code, action) {
  let result
  try {
    result = await action()
  } catch (error) {
    assert.strictEqual(codeOf(error), code, `expected error ${code}, got ${error.stack}`)
    return
  }
  assert.fail(`expected error ${code}, got success: ${JSON.stringify(result)}`)
}

/** A topic's change reaches a broker's metadata a moment after the controller's answer. */
async function eventually(what, probe, seconds = 10) {
  const end = Date.now() + seconds * 1000
  let last
  while (Date.now() < end) {
    try {
      last = await probe()
      if (last) return last
    } catch (error) {
      last = error
    }
    await sleep(50)
  }
  assert.fail(`${what}: not within ${seconds} s, last: ${last}`)
}

class Driver {
  constructor(request) {
    this.bootstrap = request.bootstrap
    this.topic = request.topic
    this.partitionOfKey = request.partition_of_key
    this.retry = { initialRetryTime: 100, maxRetryTime: 1000, retries: 40 }
    this.kafka = new Kafka({
      brokers: [this.bootstrap],
      logLevel: logLevel.WARN,
      retry: this.retry,
      connectionTimeout: 5000,
    })
    this.admin = this.kafka.admin({ retry: { ...this.retry, retries: 2 } })
    this.open = []
  }

  async start() {
    await this.admin.connect()
  }

  async close() {
    for (const closing of [...this.open, () => this.admin.disconnect()]) {
      await Promise.race([closing().catch(error => console.log(`close: ${error}`)), sleep(3000)])
    }
  }

  // --- primitives ---------------------------------------------------------------------------------

  async created(topic = this.topic, partitions = 1, config = {}) {
    await this.create(topic, partitions, config)
    await eventually('topic has leaders', () => this.hasLeaders(topic, partitions))
    // Metadata may name a leader that does not know of it yet; kafkajs sends a whole request again
    // when one of its partitions was refused, so nothing starts before all of them answer.
    await eventually('leaders answer', () => this.admin.fetchTopicOffsets(topic))
  }

  create(topic, partitions, config) {
    const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }))
    const wanted = { topic, numPartitions: partitions, replicationFactor: 1, configEntries }
    return this.admin.createTopics({ topics: [wanted], waitForLeaders: false })
  }

  async leaders(topic) {
    const { topics } = await this.admin.fetchTopicMetadata({ topics: [topic] })
    return topics[0].partitions.map(({ leader }) => leader)
  }

  async hasLeaders(topic, partitions) {
    const leaders = await this.leaders(topic)
    return leaders.length === partitions && leaders.every(leader => leader >= 0)
  }

  async config(topic = this.topic) {
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic }]
    const described = await this.admin.describeConfigs({ resources, includeSynonyms: false })
    const entries = described.resources[0].configEntries
    return Object.fromEntries(entries.map(entry => [entry.configName, entry.configValue]))
  }

  alter(changes) {
    const configEntries = Object.entries(changes).map(([name, value]) => ({ name, value }))
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: this.topic, configEntries }]
    return this.admin.alterConfigs({ validateOnly: false, resources })
  }

  async producer(options = {}) {
    const producer = this.kafka.producer({ retry: this.retry, ...options })
    await producer.connect()
    return producer
  }

  async produce(messages, { acks = -1, compression = CompressionTypes.None, chunk = 5000, topic = this.topic, ...options } = {}) {
    const producer = await this.producer(options)
    try {
      const answers = []
      for (let at = 0; at < messages.length; at += chunk) {
        answers.push(...(await producer.send({ topic, acks, compression, messages: messages.slice(at, at + chunk) })))
      }
      return answers
    } finally {
      await producer.disconnect()
    }
  }

  /** Produces to partition 0 and reads it back, values compared. */
  async roundTrip(messages, options = {}) {
    const answers = await this.produce(messages, options)
    if (options.acks !== 0) assert.strictEqual(answers[0].baseOffset, '0')
    const read = await this.consume(0, 0, messages.length)
    assert.deepStrictEqual(read.map(({ offset }) => Number(offset)), range(0, messages.length))
    messages.forEach(({ value }, index) => {
      const got = read[index].value
      const same = value === null ? got === null : Buffer.from(value).equals(got)
      assert(same, `value ${index} differs`)
    })
    return read
  }

  async cluster() {
    const cluster = new Cluster({
      logger: createLogger({ level: logLevel.WARN, logCreator: consoleLogger }),
      retry: this.retry,
      offsets: new Map(),
      socketFactory: socketFactory(),
      brokers: [this.bootstrap],
      clientId: 'kafkajs',
      connectionTimeout: 5000,
      requestTimeout: 40000,
      enforceRequestTimeout: true,
      metadataMaxAge: 300000,
      allowAutoTopicCreation: false,
      maxInFlightRequests: null,
      instrumentationEmitter: null,
      isolationLevel: 0,
    })
    await cluster.connect()
    this.open.push(() => cluster.disconnect())
    await cluster.addTargetTopic(this.topic)
    await cluster.refreshMetadataIfNecessary()
    return cluster
  }

  /** Reads `count` messages of `partition` from `start` on, within `seconds`. */
  async consume(partition, start, count, { maxWaitTime = 500, seconds = 20, cluster } = {}) {
    cluster = cluster || (await this.cluster())
    const { leader } = cluster.findTopicPartitionMetadata(this.topic).find(p => p.partitionId === partition)
    const broker = await cluster.findBroker({ nodeId: leader })
    const messages = []
    const end = Date.now() + seconds * 1000
    let fetchOffset = String(start)
    while (messages.length < count && Date.now() < end) {
      const { responses } = await broker.fetch({
        maxWaitTime,
        minBytes: 1,
        maxBytes: 50 << 20,
        isolationLevel: 0,
        topics: [{ topic: this.topic, partitions: [{ partition, fetchOffset, maxBytes: 1 << 20 }] }],
      })
      for (const { partitions } of responses) {
        for (const data of partitions) {
          const batch = new Batch(this.topic, fetchOffset, data)
          messages.push(...batch.messages)
          if (!batch.isEmpty()) fetchOffset = String(BigInt(batch.lastOffset()) + 1n)
        }
      }
    }
    return messages.slice(0, count)
  }

  async watermarks(partition) {
    const offsets = await this.admin.fetchTopicOffsets(this.topic)
    const { low, high } = offsets.find(entry => entry.partition === partition)
    return [Number(low), Number(high)]
  }

  /** The offset of the first record not older than `stamp`, null when there is none. */
  async offsetForTime(stamp) {
    const cluster = await this.cluster()
    const asked = [{ topic: this.topic, fromTimestamp: stamp, partitions: [{ partition: 0 }] }]
    const [{ partitions }] = await cluster.fetchTopicsOffset(asked)
    return partitions[0].offset === '-1' ? null : Number(partitions[0].offset)
  }

  // --- topics -------------------------------------------------------------------------------------

  async create_topic() {
    await this.created()
    assert((await this.admin.listTopics()).includes(this.topic), 'the topic is not listed')
  }

  async create_topic_configured() {
    const wanted = { 'retention.ms': '3600000', 'max.message.bytes': '200000' }
    await this.created(this.topic, 6, wanted)
    const config = await this.config()
    for (const [name, value] of Object.entries(wanted)) assert.strictEqual(config[name], value)
  }

  async create_topic_twice() {
    assert.strictEqual(await this.create(this.topic, 1, {}), true)
    assert.strictEqual(await this.create(this.topic, 1, {}), false, 'the second creation was not refused')
  }

  async invalid_topic_name() {
    await refused(INVALID_TOPIC_EXCEPTION, () => this.create('no/such name', 1, {}))
    await refused(INVALID_TOPIC_EXCEPTION, () => this.create('n'.repeat(250), 1, {}))
  }

  async invalid_partition_count() {
    await refused(INVALID_PARTITIONS, () => this.create(this.topic, 0, {}))
  }

  async unknown_config() {
    await refused(INVALID_CONFIG, () => this.create(this.topic, 1, { 'no.such.setting': '1' }))
    await refused(INVALID_CONFIG, () => this.create(this.topic, 1, { 'retention.ms': 'soon' }))
  }

  async list_topics() {
    const names = ['a', 'b', 'c'].map(suffix => `${this.topic}-${suffix}`)
    for (const name of names) await this.created(name)
    const listed = await this.admin.listTopics()
    assert(names.every(name => listed.includes(name)), `not all of ${names} are listed`)
  }

  async describe_topic() {
    await this.created(this.topic, 3)
    const { brokers } = await this.admin.describeCluster()
    const ids = brokers.map(({ nodeId }) => nodeId)
    const leaders = await this.leaders(this.topic)
    assert(leaders.length === 3 && leaders.every(leader => ids.includes(leader)), `leaders ${leaders} not in ${ids}`)
  }

  async unknown_topic() {
    await refused(UNKNOWN_TOPIC_OR_PARTITION, () => this.admin.fetchTopicMetadata({ topics: [this.topic] }))
  }

  async auto_create() {
    await this.produce([{ value: 'first', partition: 0 }])
    assert.deepStrictEqual(values(await this.consume(0, 0, 1)), ['first'])
  }

  async create_partitions() {
    await this.created(this.topic, 2)
    const extend = count => this.admin.createPartitions({ topicPartitions: [{ topic: this.topic, count }] })
    await extend(5)
    await eventually('5 partitions', () => this.hasLeaders(this.topic, 5))
    const [answer] = await this.produce([{ value: 'to the new one', partition: 4 }])
    assert.deepStrictEqual([answer.partition, answer.baseOffset], [4, '0'])
    await refused(INVALID_PARTITIONS, () => extend(3))
  }

  async delete_topic() {
    await this.created()
    await this.produce(numbered(3))
    await this.admin.deleteTopics({ topics: [this.topic] })
    await eventually('the topic is gone', async () => !(await this.admin.listTopics()).includes(this.topic))
    await refused(UNKNOWN_TOPIC_OR_PARTITION, () => this.admin.deleteTopics({ topics: [this.topic] }))
  }

  async recreate_topic() {
    await this.created(this.topic, 2)
    await this.produce(numbered(5))
    await this.admin.deleteTopics({ topics: [this.topic] })
    await eventually('the topic is gone', async () => !(await this.admin.listTopics()).includes(this.topic))
    await this.created(this.topic, 1)
    assert.deepStrictEqual(await this.watermarks(0), [0, 0])
    await this.roundTrip(numbered(2, 'again'))
  }

  async describe_configs() {
    await this.created(this.topic, 1, { 'segment.bytes': '16777216' })
    const config = await this.config()
    assert.strictEqual(config['segment.bytes'], '16777216')
    assert.strictEqual(config['retention.ms'], '604800000')
    assert.strictEqual(config['cleanup.policy'], 'delete')
  }

  async alter_configs() {
    throw new Unsupported('kafkajs has no IncrementalAlterConfigs')
  }

  async alter_configs_legacy() {
    await this.created(this.topic, 1, { 'retention.ms': '7200000' })
    await this.alter({ 'max.message.bytes': '150000' })
    await eventually('set', async () => (await this.config())['max.message.bytes'] === '150000')
    await eventually('what is not named falls back', async () => (await this.config())['retention.ms'] === '604800000')
    await refused(INVALID_CONFIG, () => this.alter({ 'retention.ms': 'soon' }))
  }

  async describe_cluster() {
    const { brokers, controller, clusterId } = await this.admin.describeCluster()
    assert(brokers.some(({ nodeId }) => nodeId === controller), `controller ${controller} not among the brokers`)
    assert(clusterId.length > 0, 'an empty cluster id')
    assert(brokers.some(({ host, port }) => `${host}:${port}` === this.bootstrap), JSON.stringify(brokers))
  }

  async describe_log_dirs() {
    throw new Unsupported('kafkajs has no describe log dirs')
  }

  async delete_records() {
    await this.created()
    await this.produce(numbered(10))
    const before = offset => this.admin.deleteTopicRecords({ topic: this.topic, partitions: [{ partition: 0, offset }] })
    await before('4')
    assert.deepStrictEqual(await this.watermarks(0), [4, 10])
    assert.strictEqual(values(await this.consume(0, 4, 6))[0], 'v4')
    await before('-1')
    assert.deepStrictEqual(await this.watermarks(0), [10, 10])
    await refused(OFFSET_OUT_OF_RANGE, () => before('11'))
  }

  // --- producing ----------------------------------------------------------------------------------

  async acks_0() {
    await this.created()
    await this.roundTrip(numbered(20), { acks: 0 })
  }

  async acks_1() {
    await this.created()
    await this.roundTrip(numbered(20), { acks: 1 })
  }

  async acks_all() {
    await this.created()
    await this.roundTrip(numbered(20), { acks: -1 })
  }

  async murmur2() {
    await this.created(this.topic, 6)
    await this.produce(Object.keys(this.partitionOfKey).map(key => ({ key, value: key })))
    const got = {}
    for (const partition of range(0, 6)) {
      const count = Object.values(this.partitionOfKey).filter(of => of === partition).length
      if (count > 0) for (const { key } of await this.consume(partition, 0, count)) got[key.toString()] = partition
    }
    assert.deepStrictEqual(got, { ...this.partitionOfKey })
  }

  async headers() {
    await this.created()
    const bytes = Buffer.from(range(0, 256))
    const headers = { a: ['1', '2'], empty: '', bytes }
    const [read] = await this.roundTrip([{ key: 'k', value: 'v', partition: 0, headers }])
    assert.deepStrictEqual(read.headers.a.map(String), ['1', '2'])
    assert.strictEqual(read.headers.empty.length, 0)
    assert(bytes.equals(read.headers.bytes), 'the bytes differ')
  }

  async null_key_value() {
    await this.created()
    const messages = [{ value: 'value', key: null }, { value: null, key: 'key' }, { value: null, key: null }, { value: '', key: '' }]
    const read = await this.roundTrip(messages.map(message => ({ ...message, partition: 0 })))
    assert.deepStrictEqual(read.map(({ key }) => (key === null ? null : key.toString())), [null, 'key', null, ''])
  }

  async explicit_partition() {
    await this.created(this.topic, 6)
    const [answer] = await this.produce([{ key: 'any', value: 'here', partition: 5 }])
    assert.deepStrictEqual([answer.partition, answer.baseOffset], [5, '0'])
    for (const partition of range(0, 5)) assert.deepStrictEqual(await this.watermarks(partition), [0, 0])
  }

  async create_time() {
    await this.created()
    const stamps = [BASE_TIME, BASE_TIME + 1, 1600000000000].map(String)
    const read = await this.roundTrip(stamps.map(timestamp => ({ value: 'v', partition: 0, timestamp })))
    assert.deepStrictEqual(read.map(({ timestamp }) => timestamp), stamps)
  }

  async log_append_time() {
    await this.created(this.topic, 1, { 'message.timestamp.type': 'LogAppendTime' })
    const before = Date.now() - 2000
    const [read] = await this.roundTrip([{ value: 'v', partition: 0, timestamp: String(BASE_TIME) }])
    assert(Number(read.timestamp) > before, `not the time of append: ${read.timestamp}`)
  }

  async compressed(compression) {
    await this.created()
    const messages = range(0, 500).map(number => ({ value: `record ${number} `.repeat(20), partition: 0 }))
    await this.roundTrip(messages, { compression })
  }

  gzip() {
    return this.compressed(CompressionTypes.GZIP)
  }

  snappy() {
    return this.compressed(CompressionTypes.Snappy)
  }

  lz4() {
    return this.compressed(CompressionTypes.LZ4)
  }

  zstd() {
    return this.compressed(CompressionTypes.ZSTD)
  }

  async large_batch() {
    await this.created()
    const value = Buffer.alloc(900000)
    for (let at = 0; at < value.length; at++) value[at] = (at * 31) % 251
    await this.roundTrip([{ value, partition: 0 }])
  }

  async too_large() {
    await this.created()
    await refused(MESSAGE_TOO_LARGE, () => this.produce([{ value: Buffer.alloc(1200000), partition: 0 }]))
    await this.roundTrip(numbered(2))
  }

  async idempotent() {
    await this.created()
    await this.roundTrip(numbered(2000), { idempotent: true, maxInFlightRequests: 1, chunk: 100 })
  }

  async order_100k() {
    await this.created(this.topic, 6)
    await this.produce(range(0, ORDER_RECORDS).map(number => ({ value: String(number), partition: number % 6 })))
    await this.checkNumbers(6, ORDER_RECORDS)
  }

  async checkNumbers(partitions, count) {
    const cluster = await this.cluster()
    for (const partition of range(0, partitions)) {
      const wanted = range(partition, count, partitions).map(String)
      assert.deepStrictEqual(await this.watermarks(partition), [0, wanted.length])
      const got = values(await this.consume(partition, 0, wanted.length, { cluster }))
      assert(got.length === wanted.length && got.every((value, index) => value === wanted[index]), `partition ${partition}: lost, doubled or out of order`)
    }
  }

  // --- consuming ----------------------------------------------------------------------------------

  async from_earliest() {
    await this.created()
    await this.produce(numbered(10))
    const [low] = await this.watermarks(0)
    assert.deepStrictEqual(values(await this.consume(0, low, 10)), values(numbered(10)))
  }

  async from_latest() {
    await this.created()
    await this.produce(numbered(5, 'old'))
    const [, high] = await this.watermarks(0)
    const reading = this.consume(0, high, 3)
    await this.produce(numbered(3, 'new'))
    assert.deepStrictEqual(values(await reading), ['new0', 'new1', 'new2'])
  }

  async from_offset() {
    await this.created()
    await this.produce(numbered(100))
    const read = await this.consume(0, 57, 43)
    assert.deepStrictEqual(read.map(({ offset }) => Number(offset)), range(57, 100))
  }

  async stamped() {
    await this.created()
    for (const number of range(0, 5)) {
      await this.produce([{ value: 'v', partition: 0, timestamp: String(BASE_TIME + number * 1000) }])
    }
  }

  async from_timestamp() {
    await this.stamped()
    const offset = await this.offsetForTime(BASE_TIME + 2500)
    assert.strictEqual(offset, 3)
    const read = await this.consume(0, offset, 2)
    assert.deepStrictEqual(read.map(({ timestamp }) => Number(timestamp)), [BASE_TIME + 3000, BASE_TIME + 4000])
  }

  async offsets_for_times() {
    await this.stamped()
    assert.strictEqual(await this.offsetForTime(BASE_TIME - 1), 0)
    assert.strictEqual(await this.offsetForTime(BASE_TIME + 3000), 3)
    assert.strictEqual(await this.offsetForTime(BASE_TIME + 3001), 4)
    assert.strictEqual(await this.offsetForTime(BASE_TIME + 4001), null)
  }

  async max_timestamp() {
    throw new Unsupported('kafkajs asks ListOffsets 3 at most, which has no maximal timestamp')
  }

  async watermarks_operation() {
    await this.created(this.topic, 2)
    assert.deepStrictEqual(await this.watermarks(1), [0, 0])
    await this.produce(numbered(7, 'v', 1))
    assert.deepStrictEqual(await this.watermarks(1), [0, 7])
    assert.deepStrictEqual(await this.watermarks(0), [0, 0])
  }

  async out_of_range() {
    await this.created()
    await this.produce(numbered(4))
    await refused(OFFSET_OUT_OF_RANGE, () => this.consume(0, 1000, 1))
  }

  async long_poll() {
    await this.created()
    await this.produce(numbered(1))
    const reading = this.consume(0, 1, 1, { maxWaitTime: 20000 })
    await sleep(1000)
    const sentAt = Date.now()
    await this.produce(numbered(1, 'late'))
    assert.deepStrictEqual(values(await reading), ['late0'])
    assert(Date.now() - sentAt < 5000, `the record came ${Date.now() - sentAt} ms after it was sent: the fetch did not wake`)
  }

  async restart() {
    await this.created(this.topic, 3)
    const producer = await this.producer({ idempotent: true, maxInFlightRequests: 1 })
    this.open.push(() => producer.disconnect())
    const send = async (from, to) => {
      for (let at = from; at < to; at += 300) {
        const messages = range(at, Math.min(at + 300, to)).map(number => ({ value: String(number), partition: number % 3 }))
        await producer.send({ topic: this.topic, acks: -1, messages })
      }
    }
    const third = RESTART_RECORDS / 3
    await send(0, third)
    const sending = send(third, RESTART_RECORDS)
    const restarted = nextLine()
    say({ outcome: 'restart' })
    await restarted
    await sending
    await this.checkNumbers(3, RESTART_RECORDS)
  }

  // --- groups and transactions --------------------------------------------------------------------

  async groupConsume(count) {
    const consumer = this.kafka.consumer({ groupId: `${this.topic}-group`, readUncommitted: true })
    const messages = []
    await consumer.connect()
    await consumer.subscribe({ topics: [this.topic], fromBeginning: true })
    const done = new Promise(resolve => {
      consumer.run({
        autoCommit: false,
        eachMessage: async ({ partition, message }) => {
          if (messages.length >= count) return
          messages.push(message)
          if (messages.length === count) {
            const offset = String(Number(message.offset) + 1)
            await consumer.commitOffsets([{ topic: this.topic, partition, offset }])
            resolve()
          }
        },
      })
    })
    await Promise.race([done, sleep(25000)])
    await consumer.disconnect()
    return messages
  }

  async subscribe() {
    await this.created(this.topic, 3)
    await this.produce(range(0, 30).map(number => ({ value: String(number), partition: number % 3 })))
    assert.strictEqual(new Set(values(await this.groupConsume(30))).size, 30)
  }

  async commit_resume() {
    await this.created()
    await this.produce(numbered(20))
    assert.strictEqual(values(await this.groupConsume(8))[7], 'v7')
    assert.strictEqual(values(await this.groupConsume(12))[0], 'v8')
  }

  async list_groups() {
    await this.created()
    await this.produce(numbered(1))
    await this.groupConsume(1)
    const { groups } = await this.admin.listGroups()
    assert(groups.some(({ groupId }) => groupId === `${this.topic}-group`), 'the group is not listed')
  }

  async transaction() {
    await this.created()
    const producer = await this.producer({ transactionalId: `${this.topic}-id`, idempotent: true, maxInFlightRequests: 1 })
    const aborted = await producer.transaction()
    await aborted.send({ topic: this.topic, messages: numbered(2, 'no') })
    await aborted.abort()
    const committed = await producer.transaction()
    await committed.send({ topic: this.topic, messages: numbered(2, 'yes') })
    await committed.commit()
    await producer.disconnect()
    const consumer = this.kafka.consumer({ groupId: `${this.topic}-group`, readUncommitted: false })
    const read = []
    await consumer.connect()
    await consumer.subscribe({ topics: [this.topic], fromBeginning: true })
    consumer.run({ eachMessage: async ({ message }) => read.push(message) })
    await eventually('two committed records', async () => read.length >= 2)
    await consumer.disconnect()
    assert.deepStrictEqual(values(read), ['yes0', 'yes1'])
  }
}

const lines = []
const waiting = []
let ended = false
const input = readline.createInterface({ input: process.stdin })
input.on('line', line => (waiting.length > 0 ? waiting.shift()(line) : lines.push(line)))
input.on('close', () => {
  ended = true
  waiting.forEach(resolve => resolve(null))
})

function nextLine() {
  if (lines.length > 0) return Promise.resolve(lines.shift())
  if (ended) return Promise.resolve(null)
  return new Promise(resolve => waiting.push(resolve))
}

async function perform(request) {
  const driver = new Driver(request)
  try {
    await driver.start()
    const name = request.operation === 'watermarks' ? 'watermarks_operation' : request.operation
    if (typeof driver[name] !== 'function') throw new Unsupported('the driver has no such operation')
    await driver[name]()
    return { outcome: 'passed' }
  } catch (error) {
    if (error instanceof Unsupported) return { outcome: 'skipped', detail: error.message }
    console.log(error.stack)
    return { outcome: 'failed', detail: String(error).slice(0, 600) }
  } finally {
    await driver.close()
  }
}

async function main() {
  zstd = await new Promise(resolve => installed('zstd-codec').ZstdCodec.run(codec => resolve(new codec.Simple())))
  for (let line = await nextLine(); line !== null; line = await nextLine()) {
    say(await perform(JSON.parse(line)))
  }
  process.exit(0)
}

// A rejection that nobody awaits belongs to a client that is already closed; it is output, no end.
process.on('unhandledRejection', error => console.log(`unhandled: ${error && error.stack}`))
main()
