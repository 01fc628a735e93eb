//! How a record is printed. `[P]`

use anyhow::bail;
use levada_record::Record;
use serde_json::{Value, json};

/// A part of what is printed for each record.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Value,
    Key,
    Offset,
    Partition,
    Topic,
    Time,
    Headers,
    ValueBytes,
    KeyBytes,
}

/// What is printed for each record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON object per line.
    Json,
    /// As the user said.
    Parts(Parts),
}

/// A parsed format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts(Vec<Part>);

impl Format {
    /// Reads a format string.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let part = match character {
                '%' => match characters.next() {
                    Some('%') => {
                        literal.push(b'%');
                        continue;
                    }
                    Some('v' | 's') => Part::Value,
                    Some('k') => Part::Key,
                    Some('o') => Part::Offset,
                    Some('p') => Part::Partition,
                    Some('t') => Part::Topic,
                    Some('T') => Part::Time,
                    Some('h') => Part::Headers,
                    Some('V' | 'S') => Part::ValueBytes,
                    Some('K') => Part::KeyBytes,
                    Some(other) => bail!("--format: %{other} means nothing; see --help"),
                    None => bail!("--format: a % at the end; %% is a percent sign"),
                },
                '\\' => {
                    literal.push(match characters.next() {
                        Some('n') => b'\n',
                        Some('t') => b'\t',
                        Some('r') => b'\r',
                        Some('0') => 0,
                        Some('\\') => b'\\',
                        Some(other) => bail!("--format: \\{other} means nothing; see --help"),
                        None => bail!("--format: a \\ at the end; \\\\ is a backslash"),
                    });
                    continue;
                }
                other => {
                    literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(part);
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self::Parts(Parts(parts)))
    }

    /// Appends what is printed for a record.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        topic: &str,
        partition: i32,
        record: &Record<'_>,
    ) {
        match self {
            Self::Json => write_json(out, topic, partition, record),
            Self::Parts(Parts(parts)) => {
                for part in parts {
                    write_part(out, part, topic, partition, record);
                }
            }
        }
    }
}

fn write_part(out: &mut Vec<u8>, part: &Part, topic: &str, partition: i32, record: &Record<'_>) {
    let length = |bytes: Option<&[u8]>| {
        bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.len().to_string())
    };
    match part {
        Part::Text(text) => out.extend_from_slice(text),
        Part::Value => out.extend_from_slice(record.value.unwrap_or_default()),
        Part::Key => out.extend_from_slice(record.key.unwrap_or_default()),
        Part::Offset => out.extend_from_slice(record.offset.to_string().as_bytes()),
        Part::Partition => out.extend_from_slice(partition.to_string().as_bytes()),
        Part::Topic => out.extend_from_slice(topic.as_bytes()),
        Part::Time => out.extend_from_slice(record.timestamp.to_string().as_bytes()),
        Part::ValueBytes => out.extend_from_slice(length(record.value).as_bytes()),
        Part::KeyBytes => out.extend_from_slice(length(record.key).as_bytes()),
        Part::Headers => {
            for (index, header) in record.headers.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(header.key);
                out.push(b'=');
                out.extend_from_slice(header.value.unwrap_or_default());
            }
        }
    }
}

fn write_json(out: &mut Vec<u8>, topic: &str, partition: i32, record: &Record<'_>) {
    let mut object = json!({
        "topic": topic,
        "partition": partition,
        "offset": record.offset.get(),
        "timestamp": record.timestamp.as_ms(),
        "key": Value::Null,
        "value": Value::Null,
    });
    put_bytes(&mut object, "key", record.key);
    put_bytes(&mut object, "value", record.value);
    if !record.headers.is_empty() {
        let headers = record.headers.iter().map(|header| {
            let mut pair =
                json!({ "key": String::from_utf8_lossy(header.key), "value": Value::Null });
            put_bytes(&mut pair, "value", header.value);
            pair
        });
        object["headers"] = headers.collect();
    }
    out.extend_from_slice(object.to_string().as_bytes());
    out.push(b'\n');
}

/// Text as it is; other bytes under `<name>_hex`.
fn put_bytes(object: &mut Value, name: &str, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else { return };
    match std::str::from_utf8(bytes) {
        Ok(text) => object[name] = Value::String(text.to_owned()),
        Err(_) => {
            let mut hex = String::with_capacity(2 * bytes.len());
            for byte in bytes {
                for digit in [byte >> 4, byte & 15] {
                    hex.extend(char::from_digit(u32::from(digit), 16));
                }
            }
            object[format!("{name}_hex")] = Value::String(hex);
        }
    }
}

#[cfg(test)]
mod tests {
    use levada_record::{
        BatchBuilder, Compression, NewRecord, RecordHeader, Timestamp, VerifyLimits, next_batch,
    };

    use super::*;

    fn print(format: &str, key: Option<&[u8]>, value: Option<&[u8]>) -> String {
        let format = if format == "json" { Format::Json } else { Format::parse(format).unwrap() };
        let headers = [
            RecordHeader { key: b"a", value: Some(b"1") },
            RecordHeader { key: b"b", value: None },
        ];
        let mut builder = BatchBuilder::new(Compression::None);
        builder
            .push(&NewRecord { timestamp: Timestamp(99), key, value, headers: &headers })
            .unwrap();
        let bytes = builder.finish().unwrap();
        let (batch, _) = next_batch(&bytes, &VerifyLimits::DEFAULT).unwrap().unwrap();
        let record = batch.plain_records().unwrap().next().unwrap().unwrap();
        let mut out = Vec::new();
        format.write(&mut out, "t", 3, &record);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_part_is_printed() {
        let all = print("%t-%p@%o %T %K:%k %V:%v %h %%ä\\t\\n", Some(b"k"), Some(b"value"));
        assert_eq!(all, "t-3@0 99 1:k 5:value a=1,b= %ä\t\n");
        assert_eq!(print("%K %V|%k%v", None, None), "-1 -1|");
    }

    #[test]
    fn json_tells_null_text_and_bytes_apart() {
        let line = print("json", None, Some(b"\xff\x00"));
        assert!(line.ends_with('\n'));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["key"], Value::Null);
        assert_eq!(value["value"], Value::Null);
        assert_eq!(value["value_hex"], "ff00");
        assert_eq!(value["headers"][1], json!({ "key": "b", "value": null }));
        let value: Value = serde_json::from_str(&print("json", Some(b""), Some(b"x"))).unwrap();
        assert_eq!((&value["key"], &value["value"]), (&json!(""), &json!("x")));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in ["%", "%x", "\\", "\\q"] {
            assert!(Format::parse(text).is_err(), "{text}");
        }
    }
}
