//! `docs/configuration.md` has every key with unit, default and meaning: its tables are made from the
//! tables in the code, and this is the test that they are. `LEVADA_WRITE_PAGE=1 cargo test -p
//! levada-cli page` writes them anew.

use std::fmt::Write as _;

use levada_broker::BrokerConfig;
use toml::{Table, Value};

use super::coordinator_settings;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

fn row(out: &mut String, key: &str, unit: &str, default: &str, doc: &str) {
    let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    writeln!(out, "| `{key}` | {unit} | {default} | {doc} |").unwrap();
}

fn head() -> String {
    "| key | unit | default | meaning |\n|---|---|---|---|\n".to_owned()
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn broker_table() -> String {
    let defaults = Table::try_from(BrokerConfig::default()).unwrap();
    let mut out = head();
    for setting in levada_broker::SETTINGS {
        let default = match defaults.get(setting.key) {
            None => "none".to_owned(),
            Some(Value::String(text)) => code(text),
            Some(Value::Array(items)) => {
                let items: Vec<_> = items.iter().filter_map(Value::as_str).map(code).collect();
                items.join(", ")
            }
            Some(other) => other.to_string(),
        };
        row(&mut out, setting.key, setting.unit, &default, setting.doc);
    }
    out
}

fn coordinator_table() -> String {
    let defaults = coordinator_settings::defaults();
    let mut out = head();
    for setting in coordinator_settings::SETTINGS {
        let (_, default) = defaults.iter().find(|(key, _)| key == setting.key).unwrap();
        let default = match (default.as_str(), setting.unit) {
            ("None", _) => "none".to_owned(),
            (text, "path" | "address:port" | "text") => code(text),
            (other, _) => other.to_owned(),
        };
        row(&mut out, setting.key, setting.unit, &default, setting.doc);
    }
    out
}

/// The page with the table behind `marker` replaced.
fn with_table(page: &str, marker: &str, table: &str) -> String {
    let begin = format!("<!-- {marker} -->\n");
    let (before, rest) = page.split_once(&begin).unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    format!("{before}{begin}{table}<!-- end -->{after}")
}

#[test]
fn the_page_has_every_key_with_unit_and_default() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let wanted = with_table(&page, "broker", &broker_table());
    let wanted = with_table(&wanted, "coordinator", &coordinator_table());
    if std::env::var_os("LEVADA_WRITE_PAGE").is_some() {
        std::fs::write(PAGE, &wanted).unwrap();
        return;
    }
    assert!(
        page == wanted,
        "docs/configuration.md is old: LEVADA_WRITE_PAGE=1 cargo test -p levada-cli page"
    );
}
