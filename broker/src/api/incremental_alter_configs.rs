//! `IncrementalAlterConfigs`: changes single settings of topics, and leaves the others.

use std::future::Future;
use std::rc::Rc;

use levada_protocol::cluster::request::{
    AlterKind, ConfigAlteration, ConfigChange, ConfigOp, Mode,
};
use levada_protocol::kafka::incremental_alter_configs::{
    AlterConfigsResourceResponse, AlterableConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::alter_configs::{Resource, alter, resource, without_value};
use super::change::Refused;
use super::context::Context;

/// Reads the request at once, and gives the rest of the work.
pub fn handle(
    context: &Rc<Context>,
    request: &IncrementalAlterConfigsRequest<'_>,
) -> impl Future<Output = IncrementalAlterConfigsResponse<'static>> + use<> {
    let shard = Rc::clone(&context.shard);
    let image = shard.image.get();
    let resources = request.resources.iter().map(|asked| Resource {
        kind: asked.resource_type,
        name: asked.resource_name.to_string(),
        alteration: resource(&image.image, asked.resource_type, &asked.resource_name).and_then(
            |resource| {
                let changes = asked.configs.iter().map(changed).collect::<Result<_, _>>()?;
                Ok(ConfigAlteration { resource, kind: AlterKind::Incremental, changes })
            },
        ),
    });
    let resources = resources.collect();
    let mode = if request.validate_only { Mode::ValidateOnly } else { Mode::Execute };
    async move {
        let altered = alter(&shard, resources, mode).await;
        let responses = altered.into_iter().map(|altered| AlterConfigsResourceResponse {
            error_code: altered.code().to_i16(),
            error_message: altered.refused.map(|refused| refused.message.into()),
            resource_type: altered.kind,
            resource_name: altered.name.into(),
        });
        IncrementalAlterConfigsResponse { throttle_time_ms: 0, responses: responses.collect() }
    }
}

/// 0 sets, 1 deletes, 2 adds to a list, 3 takes out of it.
fn changed(config: &AlterableConfig<'_>) -> Result<ConfigChange, Refused> {
    let name = config.name.to_string();
    let value = config.value.as_deref().map(str::to_owned).ok_or_else(|| without_value(&name));
    let op = match config.config_operation {
        0 => ConfigOp::Set(value?),
        1 => ConfigOp::Delete,
        2 => ConfigOp::Append(value?),
        3 => ConfigOp::Subtract(value?),
        other => {
            let message = format!("setting {name}: there is no operation {other}");
            return Err(Refused::invalid(message));
        }
    };
    Ok(ConfigChange { name, op })
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_protocol::kafka::ErrorCode;

    fn change(config_operation: i8, value: Option<&str>) -> Result<ConfigOp, ErrorCode> {
        let config = AlterableConfig {
            name: "retention.ms".into(),
            config_operation,
            value: value.map(Into::into),
        };
        changed(&config).map(|change| change.op).map_err(|refused| refused.code)
    }

    #[test]
    fn every_operation_but_delete_needs_a_value() {
        assert_eq!(change(0, Some("5")), Ok(ConfigOp::Set("5".into())));
        assert_eq!(change(1, None), Ok(ConfigOp::Delete));
        assert_eq!(change(2, Some("a")), Ok(ConfigOp::Append("a".into())));
        assert_eq!(change(3, Some("a")), Ok(ConfigOp::Subtract("a".into())));
        for (operation, value) in [(0, None), (2, None), (3, None), (4, Some("5")), (-1, None)] {
            assert_eq!(change(operation, value), Err(ErrorCode::InvalidRequest), "{operation}");
        }
    }
}
