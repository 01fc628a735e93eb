//! Which version of which API to send, the highest that both sides speak, and whether batches may be
//! columnar. `[P]`

use std::collections::HashMap;

use levada_protocol::kafka::api_versions::ApiVersionsResponse;
use levada_protocol::kafka::levada::COLUMNAR_FEATURE;
use levada_protocol::kafka::{ApiKey, Versions};
use levada_record::Encoding;

/// Versions that this client writes. Produce and Fetch end below those that name topics by id only.
pub(super) fn spoken(api: ApiKey) -> Versions {
    let accepted = api.accepted();
    match api {
        ApiKey::Produce | ApiKey::Fetch => Versions { min: accepted.min, max: 12 },
        _ => accepted,
    }
}

/// What the broker at the other end serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServedVersions {
    apis: HashMap<i16, Versions>,
    /// The encoding that costs it and its readers least.
    best_encoding: Encoding,
}

/// Levada's feature, at the level that this client knows.
fn takes_columns(response: &ApiVersionsResponse<'_>) -> bool {
    response.supported_features.iter().any(|feature| {
        feature.name == COLUMNAR_FEATURE.name
            && (feature.min_version..=feature.max_version).contains(&COLUMNAR_FEATURE.level)
    })
}

impl ServedVersions {
    /// From its answer. A row that says nothing sensible serves nothing.
    pub(super) fn from_response(response: &ApiVersionsResponse<'_>) -> Self {
        let rows = response.api_keys.iter();
        let apis =
            rows.map(|row| (row.api_key, Versions { min: row.min_version, max: row.max_version }));
        let best_encoding =
            if takes_columns(response) { Encoding::Columnar } else { Encoding::KafkaV2 };
        Self { apis: apis.collect(), best_encoding }
    }

    /// Columnar when the broker takes and gives that, else Kafka's records.
    pub fn best_encoding(&self) -> Encoding {
        self.best_encoding
    }

    /// Highest version of `api` that both sides speak.
    pub fn common(&self, api: ApiKey) -> Option<i16> {
        let served = *self.apis.get(&api.to_i16())?;
        spoken(api).highest_common(served)
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::kafka::api_versions::{ApiVersion, SupportedFeatureKey};

    use super::*;

    #[test]
    fn columns_need_the_feature_at_the_level_we_know() {
        for (name, min_version, max_version, expected) in [
            ("levada.columnar", 1, 1, Encoding::Columnar),
            ("levada.columnar", 0, 3, Encoding::Columnar),
            ("levada.columnar", 2, 3, Encoding::KafkaV2),
            ("metadata.version", 1, 21, Encoding::KafkaV2),
        ] {
            let feature = SupportedFeatureKey { name: name.into(), min_version, max_version };
            let supported_features = vec![feature];
            let response = ApiVersionsResponse { supported_features, ..Default::default() };
            let served = ServedVersions::from_response(&response);
            assert_eq!(served.best_encoding(), expected, "{name} {min_version}..={max_version}");
        }
    }

    #[test]
    fn the_highest_common_version_is_sent() {
        let row =
            |api_key, min_version, max_version| ApiVersion { api_key, min_version, max_version };
        let api_keys = vec![row(0, 0, 99), row(3, 0, 4), row(22, 90, 99), row(1, 9, 3)];
        let served =
            ServedVersions::from_response(&ApiVersionsResponse { api_keys, ..Default::default() });
        assert_eq!(served.common(ApiKey::Produce), Some(12));
        assert_eq!(served.common(ApiKey::Metadata), Some(4));
        assert_eq!(served.common(ApiKey::InitProducerId), None);
        assert_eq!(served.common(ApiKey::Fetch), None);
        assert_eq!(served.common(ApiKey::CreateTopics), None);
    }
}
