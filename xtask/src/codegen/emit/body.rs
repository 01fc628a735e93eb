//! Bodies of the decoder and the encoder of one structure. `[P]`

use std::fmt::Write as _;

use super::super::schema::{Api, Field, Span, Struct, Type};
use super::types::{condition, default_of, item_bytes_min, method};

pub(super) fn decode_body(api: &Api, part: &Struct) -> String {
    let tagged: Vec<&Field> = part.fields.iter().filter(|field| field.tag.is_some()).collect();
    let flexible = api.flexible_from <= api.versions.max;
    let mut literal = String::from("Self {\n");
    for field in &part.fields {
        let read = read_of(api, field, "r");
        let value = if field.tag.is_some() {
            default_of(field)
        } else if let Some(condition) = condition(field.span, api) {
            format!("if {condition} {{ {read} }} else {{ {} }}", default_of(field))
        } else {
            read
        };
        putln!(literal, "{}: {value},", field.name);
    }
    literal.push('}');
    let mut out = String::new();
    if tagged.is_empty() {
        put!(out, "let this = {literal};\n");
        if flexible {
            out.push_str("r.skip_tags()?;\n");
        }
    } else {
        put!(out, "let mut this = {literal};\n");
        out.push_str(
            "let mut tags = r.tags()?;\nwhile let Some((tag, mut value)) = tags.next(r)? {\n",
        );
        for (index, field) in tagged.iter().enumerate() {
            let tag = field.tag.expect("filtered");
            let always = field.span.min <= api.flexible_from && field.span.max == api.versions.max;
            let and = match condition(field.span, api) {
                Some(condition) if !always => format!(" && {condition}"),
                _ => String::new(),
            };
            put!(
                out,
                "{}if tag == {tag}{and} {{\nthis.{} = {};\nr.end_tag(value)?;\n}}",
                if index == 0 { "" } else { " else " },
                field.name,
                read_of(api, field, "&mut value").replace("&mut value.", "value."),
            );
        }
        out.push_str("\n}\n");
    }
    out.push_str("Ok(this)\n");
    out
}

pub(super) fn read_of(api: &Api, field: &Field, reader: &str) -> String {
    let nullable =
        field.nullable_from.map(|from| match condition(Span { min: from, ..api.versions }, api) {
            None => "true".to_owned(),
            Some(condition) => condition,
        });
    match (&field.ty, nullable) {
        (Type::Array(item), nullable) => {
            let least = item_bytes_min(api, item, field.span);
            let item = match &**item {
                Type::Struct(name) => format!("{name}::decode"),
                ty => format!("|r, _| r.{}()", method(ty)),
            };
            match nullable {
                None => format!("{reader}.array({least}, version, {item})?"),
                Some(nullable) => {
                    format!("{reader}.optional_array({nullable}, {least}, version, {item})?")
                }
            }
        }
        (Type::Struct(name), None) => format!("{name}::decode({reader}, version)?"),
        (Type::Struct(name), Some(_)) => {
            format!(
                "if {reader}.is_some()? {{ Some({name}::decode({reader}, version)?) }} else {{ None }}"
            )
        }
        (Type::String, Some(nullable)) => format!("{reader}.optional_string({nullable})?"),
        (ty, _) => format!("{reader}.{}()?", method(ty)),
    }
}

pub(super) fn encode_body(api: &Api, part: &Struct) -> String {
    let flexible = api.flexible_from <= api.versions.max;
    let mut out = String::new();
    for field in part.fields.iter().filter(|field| field.tag.is_none()) {
        let write = write_of(api, field);
        match condition(field.span, api) {
            None => out.push_str(&write),
            Some(condition) if field.required => {
                let set = is_set(field);
                put!(
                    out,
                    "if {condition} {{\n{write}}} else if {set} {{\nw.refuse(\"{}.{}\");\n}}\n",
                    part.name,
                    field.name
                );
            }
            Some(condition) => {
                put!(out, "if {condition} {{\n{write}}}\n");
            }
        }
    }
    let mut tagged: Vec<&Field> = part.fields.iter().filter(|field| field.tag.is_some()).collect();
    tagged.sort_by_key(|field| field.tag);
    if tagged.is_empty() {
        if flexible {
            out.push_str("w.no_tags();\n");
        }
        return out;
    }
    out.push_str("if w.is_flexible() {\nlet tags = w.begin_tags();\n");
    for field in tagged {
        let always = field.span.min <= api.flexible_from && field.span.max == api.versions.max;
        let and = match condition(field.span, api) {
            Some(condition) if !always => format!("{condition} && "),
            _ => String::new(),
        };
        put!(
            out,
            "if {and}{} {{\nlet tag = w.begin_tag(&tags, {});\n{}w.end_tag(tag);\n}}\n",
            is_set(field),
            field.tag.expect("filtered"),
            write_of(api, field),
        );
    }
    out.push_str("}\n");
    out
}

pub(super) fn write_of(api: &Api, field: &Field) -> String {
    let name = &field.name;
    let nullable =
        field.nullable_from.map(|from| match condition(Span { min: from, ..api.versions }, api) {
            None => "true".to_owned(),
            Some(condition) => condition,
        });
    match (&field.ty, nullable) {
        (Type::Array(item), nullable) => {
            let (each, items) = match nullable {
                None => (format!("w.count(self.{name}.len());\n"), format!("&self.{name}")),
                Some(nullable) => (
                    format!("w.optional_count(self.{name}.as_ref().map(Vec::len), {nullable});\n"),
                    format!("self.{name}.iter().flatten()"),
                ),
            };
            let write = match &**item {
                Type::Struct(_) => "item.encode(w, version);".to_owned(),
                ty @ (Type::String | Type::Bytes) => format!("w.{}(item);", method(ty)),
                ty => format!("w.{}(*item);", method(ty)),
            };
            format!("{each}for item in {items} {{\n{write}\n}}\n")
        }
        (Type::Struct(_), None) => format!("self.{name}.encode(w, version);\n"),
        (Type::Struct(_), Some(_)) => format!(
            "w.is_some(self.{name}.is_some());\nif let Some(value) = &self.{name} {{\nvalue.encode(w, version);\n}}\n"
        ),
        (Type::String, Some(nullable)) => {
            format!("w.optional_string(self.{name}.as_deref(), {nullable});\n")
        }
        (ty @ (Type::String | Type::Bytes), None) => format!("w.{}(&self.{name});\n", method(ty)),
        (ty, _) => format!("w.{}(self.{name});\n", method(ty)),
    }
}

/// Whether a field differs from its default.
pub(super) fn is_set(field: &Field) -> String {
    let name = &field.name;
    if field.nullable_from.is_some() {
        return format!("self.{name}.is_some()");
    }
    match (&field.ty, &field.default) {
        (Type::Bool, None) => format!("self.{name}"),
        (Type::Bool, Some(_)) => format!("!self.{name}"),
        (Type::String | Type::Bytes | Type::Array(_), _) => format!("!self.{name}.is_empty()"),
        (Type::Struct(of), _) => format!("self.{name} != {of}::default()"),
        _ => format!("self.{name} != {}", default_of(field)),
    }
}
