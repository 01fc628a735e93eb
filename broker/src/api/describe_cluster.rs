//! `DescribeCluster`: the brokers of the cluster.

use levada_protocol::cluster::BrokerState;
use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};

use super::context::Context;

/// Endpoints of brokers, on the wire.
const BROKERS: i8 = 1;

/// Endpoints of controllers, on the wire.
const CONTROLLERS: i8 = 2;

/// What anybody may do with the cluster while there are no users: create (5), alter (7), describe
/// (8), act for it (9), describe (10) and alter (11) its settings, write idempotently (12).
const ALLOWED: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// Answers from the image of this shard.
pub fn handle(
    context: &Context,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse<'static> {
    let shard = &context.shard;
    let image = shard.image.get();
    if let Err((code, message)) = check_endpoint(request.endpoint_type) {
        return DescribeClusterResponse {
            error_code: code.to_i16(),
            error_message: Some(message.into()),
            endpoint_type: request.endpoint_type,
            ..DescribeClusterResponse::default()
        };
    }
    let brokers = image
        .image
        .brokers()
        .map(|broker| (broker, broker.state == BrokerState::Fenced && broker.id != shard.broker))
        .filter(|(_, is_fenced)| request.include_fenced_brokers || !is_fenced)
        .filter_map(|(broker, is_fenced)| {
            let node = context.node(broker)?;
            Some(DescribeClusterBroker {
                broker_id: node.id.0,
                host: node.host.into(),
                port: node.port,
                rack: node.rack.map(Into::into),
                is_fenced,
            })
        })
        .collect();
    DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: image.image.cluster().to_string().into(),
        // Any broker takes what is meant for the controller and passes it on.
        controller_id: shard.broker.0,
        brokers,
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            ALLOWED
        } else {
            i32::MIN
        },
        ..DescribeClusterResponse::default()
    }
}

fn check_endpoint(endpoint: i8) -> Result<(), (ErrorCode, &'static str)> {
    match endpoint {
        BROKERS => Ok(()),
        CONTROLLERS => Err((
            ErrorCode::MismatchedEndpointType,
            "this is a broker: controllers have no Kafka endpoint",
        )),
        _ => Err((ErrorCode::UnsupportedEndpointType, "there is no endpoint of that type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_brokers_are_told_of() {
        assert_eq!(check_endpoint(1), Ok(()));
        let code = |endpoint| check_endpoint(endpoint).unwrap_err().0;
        assert_eq!(code(2), ErrorCode::MismatchedEndpointType);
        assert_eq!(code(0), ErrorCode::UnsupportedEndpointType);
        assert_eq!(code(-1), ErrorCode::UnsupportedEndpointType);
    }
}
