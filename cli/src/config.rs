//! Where settings come from: a TOML file, then `LEVADA_*` variables, then flags; later ones win.

pub(crate) mod coordinator_settings;
#[cfg(test)]
mod page;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use toml::{Table, Value};

use crate::args::parse_pair;

/// Variables that begin alike but belong to the command line.
const OWN_VARIABLES: &[&str] = &["BOOTSTRAP", "OUTPUT", "LOG", "LOG_FORMAT", "CONFIG"];

/// Where a process takes its settings from.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// TOML file with settings; see docs/configuration.md
    #[arg(long, env = "LEVADA_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// A single setting; wins over the file and over variables
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) set: Vec<(String, String)>,
}

/// One key that a process knows: its name and its unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

/// The keys of a broker.
pub(crate) fn broker_keys() -> Vec<Key> {
    let keys = levada_broker::SETTINGS.iter();
    keys.map(|setting| Key { name: setting.key, unit: setting.unit }).collect()
}

/// The keys of a coordinator.
pub(crate) fn coordinator_keys() -> Vec<Key> {
    let keys = coordinator_settings::SETTINGS.iter();
    keys.map(|setting| Key { name: setting.key, unit: setting.unit }).collect()
}

impl ConfigArgs {
    /// File, variables and flags as one table; `flags` are those with a name of their own.
    pub(crate) fn merged(
        &self,
        keys: &[Key],
        flags: &[(&str, Option<String>)],
    ) -> anyhow::Result<Table> {
        let mut table = match &self.config {
            Some(path) => read_file(path)?,
            None => Table::new(),
        };
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let (set, unknown) = from_variables(variables, keys)?;
        for name in unknown {
            tracing::warn!(variable = name, "no setting has that name; ignored");
        }
        table.extend(set);
        for (key, text) in &self.set {
            insert(&mut table, keys, key, text).context("--set")?;
        }
        for (key, text) in flags.iter().filter_map(|(key, text)| Some((key, text.as_deref()?))) {
            insert(&mut table, keys, key, text)?;
        }
        Ok(table)
    }
}

fn read_file(path: &Path) -> anyhow::Result<Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.parse().with_context(|| format!("read {}", path.display()))
}

/// Settings from variables, and the names of variables that are like settings but none.
fn from_variables(
    variables: impl Iterator<Item = (String, String)>,
    keys: &[Key],
) -> anyhow::Result<(Table, Vec<String>)> {
    let (mut table, mut unknown) = (Table::new(), Vec::new());
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix("LEVADA_") else { continue };
        let key = rest.to_ascii_lowercase();
        if keys.iter().any(|known| known.name == key) {
            insert(&mut table, keys, &key, &text).with_context(|| format!("variable {name}"))?;
        } else if !OWN_VARIABLES.contains(&rest) && !is_known_elsewhere(&key) {
            unknown.push(name);
        }
    }
    Ok((table, unknown))
}

/// A variable may be meant for the other process on the same machine.
fn is_known_elsewhere(key: &str) -> bool {
    broker_keys().iter().chain(&coordinator_keys()).any(|known| known.name == key)
}

fn insert(table: &mut Table, keys: &[Key], key: &str, text: &str) -> anyhow::Result<()> {
    let Some(known) = keys.iter().find(|known| known.name == key) else {
        bail!("unknown key {key}; docs/configuration.md lists all");
    };
    table.insert(key.to_owned(), value_of(*known, text)?);
    Ok(())
}

/// A text as the kind of value that the key takes.
fn value_of(key: Key, text: &str) -> anyhow::Result<Value> {
    let text = text.trim();
    match key.unit {
        "path" | "address:port" | "host:port" | "text" => Ok(Value::String(text.to_owned())),
        "true or false" => match text {
            "true" => Ok(Value::Boolean(true)),
            "false" => Ok(Value::Boolean(false)),
            _ => bail!("{} is {text:?}, expected true or false", key.name),
        },
        unit if unit.starts_with("list") => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        unit => match text.replace('_', "").parse::<i64>() {
            Ok(number) => Ok(Value::Integer(number)),
            Err(_) => bail!("{} is {text:?}, expected a number ({unit})", key.name),
        },
    }
}

#[cfg(test)]
mod tests {
    use levada_broker::BrokerConfig;

    use super::*;

    fn variable(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn variables_are_settings_of_their_kind() {
        let variables = [
            variable("LEVADA_SHARDS", "3"),
            variable("LEVADA_RACK", "7"),
            variable("LEVADA_COORDINATORS", "a:1, b:2"),
            variable("LEVADA_AUTO_CREATE_TOPICS", "false"),
            variable("LEVADA_CACHE_BYTES", "1_000_000"),
            variable("LEVADA_BOOTSTRAP", "x"),
            variable("LEVADA_SESSION_MS", "5000"),
            variable("LEVADA_TYPO", "x"),
            variable("HOME", "/"),
        ];
        let (table, unknown) = from_variables(variables.into_iter(), &broker_keys()).unwrap();
        assert_eq!(unknown, ["LEVADA_TYPO"]);
        let config = BrokerConfig::from_table(table).unwrap();
        assert_eq!((config.shards, config.rack.as_deref()), (3, Some("7")));
        assert_eq!(config.coordinators, ["a:1", "b:2"]);
        assert!(!config.auto_create_topics);
        assert_eq!(config.cache_bytes, 1_000_000);
    }

    #[test]
    fn wrong_values_and_unknown_keys_are_named() {
        let refuse = |key: &str, text: &str| {
            let error = insert(&mut Table::new(), &broker_keys(), key, text).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        };
        refuse("shards", "many");
        refuse("pin_shards", "yes");
        refuse("shrads", "1");
    }

    #[test]
    fn every_key_takes_its_own_default() {
        let defaults = Table::try_from(BrokerConfig::default()).unwrap();
        for key in broker_keys() {
            let Some(default) = defaults.get(key.name) else { continue };
            let text = match default {
                Value::String(text) => text.clone(),
                Value::Array(items) => {
                    items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
                }
                other => other.to_string(),
            };
            assert_eq!(&value_of(key, &text).unwrap(), default, "{}", key.name);
        }
    }

    #[test]
    fn later_sources_win() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "shards = 1\nmailbox_capacity = 7\nrack = \"r\"").unwrap();
        let args = ConfigArgs {
            config: Some(file.path().to_owned()),
            set: vec![("shards".to_owned(), "2".to_owned()), ("rack".to_owned(), "s".to_owned())],
        };
        let table =
            args.merged(&broker_keys(), &[("shards", Some("4".to_owned())), ("listen", None)]);
        let table = table.unwrap();
        assert_eq!(table.get("shards"), Some(&Value::Integer(4)));
        assert_eq!(table.get("mailbox_capacity"), Some(&Value::Integer(7)));
        assert_eq!(table.get("rack").and_then(Value::as_str), Some("s"));
    }
}
