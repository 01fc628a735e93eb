//! Reads the compact message definitions of `protocol/src/kafka/schema/*.txt`. `[P]`
//! Used by the generator, and by the protocol's tests, which build random messages from the same definitions.
//! The grammar is described in `docs/how-to/add-a-kafka-api.md`.

/// First and last version of something, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// First version.
    pub(crate) min: i16,
    /// Last version.
    pub(crate) max: i16,
}

impl Span {
    /// Whether `version` lies inside.
    pub(crate) fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    /// One byte, zero or not.
    Bool,
    /// Signed, big endian.
    I8,
    /// Signed, big endian.
    I16,
    /// Signed, big endian.
    I32,
    /// Signed, big endian.
    I64,
    /// Sixteen bytes.
    Uuid,
    /// UTF-8 with a length before it.
    String,
    /// Bytes with a length before them.
    Bytes,
    /// Record batches with a length before them; may be spliced in by the encoder.
    Records,
    /// Items with a count before them.
    Array(Box<Type>),
    /// A structure of the same file.
    Struct(String),
}

/// One field of a structure.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    /// In snake case.
    pub(crate) name: String,
    /// What it holds.
    pub(crate) ty: Type,
    /// Versions that carry it, already cut to the versions of the API.
    pub(crate) span: Span,
    /// First version in which it may be null.
    pub(crate) nullable_from: Option<i16>,
    /// Its number, when it is a tagged field.
    pub(crate) tag: Option<u32>,
    /// A value other than the default may not be dropped by a version that cannot carry it.
    pub(crate) required: bool,
    /// Literal default, when it is not zero, empty or null.
    pub(crate) default: Option<String>,
    /// One sentence for the reader of the generated type.
    pub(crate) doc: String,
}

/// What a structure is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Body of the request.
    Request,
    /// Body of the response.
    Response,
    /// Part of another structure.
    Part,
}

/// A structure: a message body or a part of one.
#[derive(Debug, Clone)]
pub(crate) struct Struct {
    /// In camel case.
    pub(crate) name: String,
    /// What it is for.
    pub(crate) role: Role,
    /// One sentence for the reader of the generated type.
    pub(crate) doc: String,
    /// In the order of the wire.
    pub(crate) fields: Vec<Field>,
}

/// One file: an API with its request and its response.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    /// Kafka's name in camel case.
    pub(crate) name: String,
    /// Kafka's number.
    pub(crate) key: i16,
    /// One sentence for the reader of the generated module.
    pub(crate) doc: String,
    /// Versions that the codec reads and writes.
    pub(crate) versions: Span,
    /// Versions to list in `ApiVersions` when the API is served.
    pub(crate) advertised: Span,
    /// First version with compact lengths and tagged fields.
    pub(crate) flexible_from: i16,
    /// Request, response and their parts, in the order of the file.
    pub(crate) structs: Vec<Struct>,
}

impl Api {
    /// Reads a definition.
    ///
    /// # Errors
    /// A sentence with the number of the line that is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut api = Self {
            name: String::new(),
            key: -1,
            doc: String::new(),
            versions: Span { min: 0, max: -1 },
            advertised: Span { min: 0, max: -1 },
            flexible_from: i16::MAX,
            structs: Vec::new(),
        };
        for (index, line) in text.lines().enumerate() {
            if !line.trim().is_empty() && !line.starts_with('#') {
                api.line(line).map_err(|why| format!("line {}: {why}: {line:?}", index + 1))?;
            }
        }
        if api.advertised.max < 0 {
            api.advertised = api.versions;
        }
        api.check()?;
        Ok(api)
    }

    /// The structure of that name.
    pub(crate) fn find(&self, name: &str) -> Option<&Struct> {
        self.structs.iter().find(|s| s.name == name)
    }

    /// The body for that role.
    pub(crate) fn body(&self, role: Role) -> Option<&Struct> {
        self.structs.iter().find(|s| s.role == role)
    }

    /// Whether `version` has compact lengths and tagged fields.
    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let (code, doc) = line.split_once(';').ok_or("no `; sentence` at the end")?;
        let doc = doc.trim().to_owned();
        let words: Vec<&str> = code.split_whitespace().collect();
        if line.starts_with(' ') {
            let field = self.field(&words, doc)?;
            let part = self.structs.last_mut().ok_or("a field before any structure")?;
            part.fields.push(field);
            return Ok(());
        }
        match *words.as_slice() {
            ["api", name, key, "versions", versions, "flexible", flexible, ref rest @ ..] => {
                name.clone_into(&mut self.name);
                self.key = key.parse().map_err(|_| "bad key")?;
                self.versions = span(versions, Span { min: 0, max: i16::MAX })?;
                self.flexible_from = span(flexible, Span { min: 0, max: i16::MAX })?.min;
                self.doc = doc;
                if let ["advertise", advertised] = *rest {
                    self.advertised = span(advertised, Span { min: 0, max: i16::MAX })?;
                } else if !rest.is_empty() {
                    return Err("unknown word".to_owned());
                }
            }
            ["request"] => self.open(format!("{}Request", self.name), Role::Request, doc),
            ["response"] => self.open(format!("{}Response", self.name), Role::Response, doc),
            ["struct", name] => self.open(name.to_owned(), Role::Part, doc),
            _ => return Err("neither api, request, response nor struct".to_owned()),
        }
        Ok(())
    }

    fn open(&mut self, name: String, role: Role, doc: String) {
        self.structs.push(Struct { name, role, doc, fields: Vec::new() });
    }

    fn field(&self, words: &[&str], doc: String) -> Result<Field, String> {
        let [name, ty, rest @ ..] = words else { return Err("a field is `name type`".to_owned()) };
        let (ty, nullable_from) = match ty.split_once('?') {
            None => (*ty, None),
            Some((ty, "")) => (ty, Some(self.versions.min)),
            Some((ty, from)) => (ty, Some(span(from, self.versions)?.min)),
        };
        let mut field = Field {
            name: (*name).to_owned(),
            ty: parse_type(ty)?,
            span: self.versions,
            nullable_from,
            tag: None,
            required: false,
            default: None,
            doc,
        };
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            match *word {
                "tag" => {
                    let number = rest.next().ok_or("no number after `tag`")?;
                    field.tag = Some(number.parse().map_err(|_| "bad tag")?);
                }
                "=" => field.default = Some((*rest.next().ok_or("no default after `=`")?).into()),
                "!" => field.required = true,
                versions => field.span = span(versions, self.versions)?,
            }
        }
        Ok(field)
    }

    fn check(&self) -> Result<(), String> {
        if self.key < 0 || self.versions.max < self.versions.min {
            return Err("no `api` line".to_owned());
        }
        for role in [Role::Request, Role::Response] {
            if self.structs.iter().filter(|s| s.role == role).count() != 1 {
                return Err(format!("not exactly one {role:?}"));
            }
        }
        for part in &self.structs {
            for field in &part.fields {
                let mut ty = &field.ty;
                while let Type::Array(item) = ty {
                    ty = item;
                }
                if let Type::Struct(name) = ty
                    && self.find(name).is_none()
                {
                    return Err(format!("{}.{}: no structure {name}", part.name, field.name));
                }
                if field.tag.is_some() && field.span.min < self.flexible_from {
                    return Err(format!("{}.{}: tag before flexible", part.name, field.name));
                }
            }
        }
        Ok(())
    }
}

/// `3+`, `4-12` or `7`, cut to `within`.
fn span(text: &str, within: Span) -> Result<Span, String> {
    let number = |text: &str| text.parse::<i16>().map_err(|_| format!("bad version {text:?}"));
    let all = if let Some(min) = text.strip_suffix('+') {
        Span { min: number(min)?, max: within.max }
    } else if let Some((min, max)) = text.split_once('-') {
        Span { min: number(min)?, max: number(max)? }
    } else {
        Span { min: number(text)?, max: number(text)? }
    };
    let cut = Span { min: all.min.max(within.min), max: all.max.min(within.max) };
    if cut.min > cut.max { Err(format!("no version left of {text:?}")) } else { Ok(cut) }
}

fn parse_type(text: &str) -> Result<Type, String> {
    if let Some(item) = text.strip_prefix('[') {
        let item = item.strip_suffix(']').ok_or("no `]`")?;
        return Ok(Type::Array(Box::new(parse_type(item)?)));
    }
    Ok(match text {
        "bool" => Type::Bool,
        "i8" => Type::I8,
        "i16" => Type::I16,
        "i32" => Type::I32,
        "i64" => Type::I64,
        "uuid" => Type::Uuid,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "records" => Type::Records,
        name if name.starts_with(char::is_uppercase) => Type::Struct(name.to_owned()),
        other => return Err(format!("no type {other:?}")),
    })
}
