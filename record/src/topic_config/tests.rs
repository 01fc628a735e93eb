//! Tests of `topic_config`.
