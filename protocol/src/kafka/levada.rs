//! What Levada's own clients and brokers tell each other in Kafka's words. `[P]`

/// A feature that a broker lists in `ApiVersions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// The only level there is.
    pub level: i16,
}

/// The broker takes and gives columnar batches; a reader says that it knows them with
/// `levada_columnar` in `Fetch`.
pub const COLUMNAR_FEATURE: Feature = Feature { name: "levada.columnar", level: 1 };
