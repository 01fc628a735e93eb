//! `ApiVersions`: what this broker serves. The first request of every client.

use std::borrow::Cow;

use levada_protocol::kafka::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, SupportedFeatureKey,
};
use levada_protocol::kafka::levada::COLUMNAR_FEATURE;
use levada_protocol::kafka::{ApiKey, ErrorCode};

use super::SERVED;

/// Lists the served APIs with the versions advertised.
pub fn handle(request: &ApiVersionsRequest<'_>, version: i16) -> ApiVersionsResponse<'static> {
    // From version 3 on a client has to say what it is.
    if version >= 3 && !is_software_name(&request.client_software_name) {
        return refusal(ErrorCode::InvalidRequest);
    }
    let api_keys = SERVED.iter().copied().map(row).collect();
    // Kafka's clients take no notice of features that they have not heard of.
    let supported_features = vec![SupportedFeatureKey {
        name: Cow::Borrowed(COLUMNAR_FEATURE.name),
        min_version: COLUMNAR_FEATURE.level,
        max_version: COLUMNAR_FEATURE.level,
    }];
    ApiVersionsResponse { api_keys, supported_features, ..ApiVersionsResponse::default() }
}

/// The answer to a version that we do not know, in version 0: it lists `ApiVersions` itself, so that
/// the client can come back with a version we both speak.
pub fn unsupported() -> ApiVersionsResponse<'static> {
    refusal(ErrorCode::UnsupportedVersion)
}

fn refusal(code: ErrorCode) -> ApiVersionsResponse<'static> {
    ApiVersionsResponse {
        error_code: code.to_i16(),
        api_keys: vec![row(ApiKey::ApiVersions)],
        ..ApiVersionsResponse::default()
    }
}

fn row(api: ApiKey) -> ApiVersion {
    let versions = api.advertised();
    ApiVersion { api_key: api.to_i16(), min_version: versions.min, max_version: versions.max }
}

/// Kafka's rule: letters, digits, dots and hyphens, beginning and ending with a letter or digit.
fn is_software_name(name: &str) -> bool {
    let is_edge = |at: Option<char>| at.is_some_and(|c| c.is_ascii_alphanumeric());
    is_edge(name.chars().next())
        && is_edge(name.chars().last())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_served_is_listed() {
        let response = handle(&ApiVersionsRequest::default(), 0);
        let listed: Vec<_> = response.api_keys.iter().map(|row| row.api_key).collect();
        let served: Vec<_> = SERVED.iter().map(|api| api.to_i16()).collect();
        assert_eq!(listed, served);
        let produce = response.api_keys.iter().find(|row| row.api_key == 0).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
    }

    #[test]
    fn columns_are_a_feature_where_versions_have_features() {
        let request = ApiVersionsRequest {
            client_software_name: "levada".into(),
            ..ApiVersionsRequest::default()
        };
        let response = handle(&request, 3);
        let features: Vec<_> = response.supported_features.iter().collect();
        assert_eq!(features.len(), 1);
        let (min, max) = (features[0].min_version, features[0].max_version);
        assert_eq!((&*features[0].name, min, max), ("levada.columnar", 1, 1));
        // Nothing is on that needed the cluster's consent.
        assert_eq!(response.finalized_features_epoch, -1);
        assert!(response.finalized_features.is_empty());
    }

    #[test]
    fn a_client_without_a_name_is_refused_from_version_3_on() {
        let nameless = ApiVersionsRequest::default();
        assert_eq!(handle(&nameless, 2).error_code, 0);
        assert_eq!(handle(&nameless, 3).error_code, ErrorCode::InvalidRequest.to_i16());
        for (name, is_fine) in
            [("apache-kafka-java", true), ("a.b", true), ("-a", false), ("a b", false)]
        {
            assert_eq!(is_software_name(name), is_fine, "{name}");
        }
    }
}
