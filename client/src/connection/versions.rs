//! Which version of which API to send: the highest that both sides speak. `[P]`

use std::collections::HashMap;

use levada_protocol::kafka::api_versions::ApiVersionsResponse;
use levada_protocol::kafka::{ApiKey, Versions};

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
pub struct ServedVersions(HashMap<i16, Versions>);

impl ServedVersions {
    /// From its answer. A row that says nothing sensible serves nothing.
    pub(super) fn from_response(response: &ApiVersionsResponse<'_>) -> Self {
        let rows = response.api_keys.iter();
        Self(
            rows.map(|row| (row.api_key, Versions { min: row.min_version, max: row.max_version }))
                .collect(),
        )
    }

    /// Highest version of `api` that both sides speak.
    pub fn common(&self, api: ApiKey) -> Option<i16> {
        let served = *self.0.get(&api.to_i16())?;
        spoken(api).highest_common(served)
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::kafka::api_versions::ApiVersion;

    use super::*;

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
