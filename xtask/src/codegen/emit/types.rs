//! What a definition's types and versions are in Rust, and on the wire at the least. `[P]`

use super::super::schema::{Api, Field, Span, Struct, Type};

pub(super) fn default_of(field: &Field) -> String {
    if let Some(default) = &field.default {
        return match (&field.ty, default.as_str()) {
            (Type::I32, "2147483647") => "i32::MAX".to_owned(),
            (Type::I32, "-2147483648") => "i32::MIN".to_owned(),
            (Type::I64, "9223372036854775807") => "i64::MAX".to_owned(),
            (_, default) => default.to_owned(),
        };
    }
    if field.nullable_from.is_some() && field.ty != Type::Records {
        return "None".to_owned();
    }
    match &field.ty {
        Type::Bool => "false".to_owned(),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => "0".to_owned(),
        Type::Uuid => "Uuid::ZERO".to_owned(),
        Type::String => "Cow::Borrowed(\"\")".to_owned(),
        Type::Bytes => "Cow::Borrowed(&[])".to_owned(),
        Type::Records => "RecordBytes::Null".to_owned(),
        Type::Array(_) => "Vec::new()".to_owned(),
        Type::Struct(name) => format!("{name}::default()"),
    }
}

pub(super) fn method(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::I8 => "i8",
        Type::I16 => "i16",
        Type::I32 => "i32",
        Type::I64 => "i64",
        Type::Uuid => "uuid",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Records => "records",
        Type::Array(_) | Type::Struct(_) => unreachable!("handled by the callers"),
    }
}

pub(super) fn field_type(api: &Api, field: &Field) -> String {
    let ty = rust_type(api, &field.ty);
    if field.nullable_from.is_some() && field.ty != Type::Records {
        format!("Option<{ty}>")
    } else {
        ty
    }
}

pub(super) fn rust_type(api: &Api, ty: &Type) -> String {
    match ty {
        Type::Uuid => "Uuid".to_owned(),
        Type::String => "Cow<'a, str>".to_owned(),
        Type::Bytes => "Cow<'a, [u8]>".to_owned(),
        Type::Records => "RecordBytes<'a>".to_owned(),
        Type::Array(item) => format!("Vec<{}>", rust_type(api, item)),
        Type::Struct(name) => {
            let part = api.find(name).expect("checked by the parser");
            format!("{name}{}", lifetime(api, part))
        }
        number => method(number).to_owned(),
    }
}

/// `<'a>` when the structure borrows anything.
pub(super) fn lifetime(api: &Api, part: &Struct) -> &'static str {
    fn borrows(api: &Api, ty: &Type) -> bool {
        match ty {
            Type::String | Type::Bytes | Type::Records => true,
            Type::Array(item) => borrows(api, item),
            Type::Struct(name) => api
                .find(name)
                .is_some_and(|part| part.fields.iter().any(|field| borrows(api, &field.ty))),
            _ => false,
        }
    }
    if part.fields.iter().any(|field| borrows(api, &field.ty)) { "<'a>" } else { "" }
}

/// When a field is there; `None` for always.
pub(super) fn condition(span: Span, api: &Api) -> Option<String> {
    match (span.min > api.versions.min, span.max < api.versions.max) {
        (false, false) => None,
        (true, false) => Some(format!("version >= {}", span.min)),
        (false, true) => Some(format!("version <= {}", span.max)),
        (true, true) => Some(format!("({}..={}).contains(&version)", span.min, span.max)),
    }
}

pub(super) fn words_of_span(span: Span, api: &Api) -> String {
    if span.min == span.max {
        format!("In version {} only", span.min)
    } else if span.max == api.versions.max {
        format!("From version {} on", span.min)
    } else if span.min == api.versions.min {
        format!("Up to version {}", span.max)
    } else {
        format!("In versions {} to {}", span.min, span.max)
    }
}

/// The least that an item takes on the wire in any version of `span`.
pub(super) fn item_bytes_min(api: &Api, ty: &Type, span: Span) -> usize {
    (span.min..=span.max).map(|version| bytes_min(api, ty, version)).min().unwrap_or(1).max(1)
}

pub(super) fn bytes_min(api: &Api, ty: &Type, version: i16) -> usize {
    let flexible = api.is_flexible(version);
    match ty {
        Type::Bool | Type::I8 => 1,
        Type::I16 => 2,
        Type::I32 => 4,
        Type::I64 => 8,
        Type::Uuid => 16,
        Type::String => {
            if flexible {
                1
            } else {
                2
            }
        }
        Type::Bytes | Type::Records | Type::Array(_) => {
            if flexible {
                1
            } else {
                4
            }
        }
        Type::Struct(name) => {
            let part = api.find(name).expect("checked by the parser");
            let fields = part.fields.iter().filter(|f| f.tag.is_none() && f.span.contains(version));
            let own: usize = fields
                .map(|field| match (&field.ty, field.nullable_from) {
                    (Type::Struct(_), Some(_)) => 1,
                    (ty, _) => bytes_min(api, ty, version),
                })
                .sum();
            own + usize::from(flexible)
        }
    }
}
