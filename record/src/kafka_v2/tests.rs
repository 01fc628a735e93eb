//! Tests of `kafka_v2`.
