//! `AlterConfigs`: replaces all settings of topics. What it shares with `IncrementalAlterConfigs` is
//! here, too. The answer comes once every shard acts on the new settings.

use std::future::Future;
use std::rc::Rc;

use levada_protocol::cluster::ClusterImage;
use levada_protocol::cluster::request::{
    AlterConfigs, AlterKind, ConfigAlteration, ConfigChange, ConfigOp, ConfigResource, Mode,
    Request,
};
use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::alter_configs::{
    AlterConfigsRequest, AlterConfigsResourceResponse, AlterConfigsResponse, AlterableConfig,
};
use levada_record::{BrokerId, TopicName};

use super::change::{self, Changed, InTime, Patience, Refused};
use super::context::Context;
use crate::shard::Shard;

/// What a topic is on the wire.
pub const TOPIC: i8 = 2;

/// What a broker is on the wire.
pub const BROKER: i8 = 4;

/// Reads the request at once, and gives the rest of the work.
pub fn handle(
    context: &Rc<Context>,
    request: &AlterConfigsRequest<'_>,
) -> impl Future<Output = AlterConfigsResponse<'static>> + use<> {
    let shard = Rc::clone(&context.shard);
    let image = shard.image.get();
    let resources = request.resources.iter().map(|asked| Resource {
        kind: asked.resource_type,
        name: asked.resource_name.to_string(),
        alteration: resource(&image.image, asked.resource_type, &asked.resource_name).and_then(
            |resource| {
                let changes = asked.configs.iter().map(replaced).collect::<Result<_, _>>()?;
                Ok(ConfigAlteration { resource, kind: AlterKind::ReplaceAll, changes })
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
        AlterConfigsResponse { throttle_time_ms: 0, responses: responses.collect() }
    }
}

fn replaced(config: &AlterableConfig<'_>) -> Result<ConfigChange, Refused> {
    let name = config.name.to_string();
    match &config.value {
        Some(value) => Ok(ConfigChange { name, op: ConfigOp::Set(value.to_string()) }),
        None => Err(without_value(&name)),
    }
}

/// One resource of a request.
pub(super) struct Resource {
    /// Its type on the wire.
    pub(super) kind: i8,
    /// Its name, as the client gave it.
    pub(super) name: String,
    /// What to do with it.
    pub(super) alteration: Result<ConfigAlteration, Refused>,
}

/// What became of it.
pub(super) struct Altered {
    /// Its type on the wire.
    pub(super) kind: i8,
    /// Its name.
    pub(super) name: String,
    /// Why nothing was changed.
    pub(super) refused: Option<Refused>,
}

impl Altered {
    pub(super) fn code(&self) -> ErrorCode {
        self.refused.as_ref().map_or(ErrorCode::None, |refused| refused.code)
    }
}

/// Has the controller change the settings, and waits until all shards act on them.
pub(super) async fn alter(shard: &Rc<Shard>, resources: Vec<Resource>, mode: Mode) -> Vec<Altered> {
    let patience = Patience::usual(shard);
    let room = change::check_count(shard, resources.len());
    let repeated =
        change::repeated(resources.iter().map(|resource| (resource.kind, resource.name.clone())));
    let (names, wanted): (Vec<_>, Vec<_>) = resources
        .into_iter()
        .map(|Resource { kind, name, alteration }| {
            let key = (kind, name);
            let alteration = match repeated.get(&key) {
                Some(true) => {
                    Err(Refused::invalid("the resource is more than once in this request"))
                }
                _ => room.clone().and(alteration),
            };
            (key, alteration)
        })
        .unzip();
    let question = |resources| Request::AlterConfigs(AlterConfigs { resources, mode });
    let Changed { index, mut outcomes } =
        change::ask::<_, ()>(shard, patience, wanted, weight_bytes, question).await;
    if mode == Mode::Execute && change::until_shown(shard, patience, index).await == InTime::No {
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
            *outcome = Err(patience.exhausted("changed, but not in effect everywhere"));
        }
    }
    let altered = names.into_iter().zip(outcomes);
    altered.map(|((kind, name), outcome)| Altered { kind, name, refused: outcome.err() }).collect()
}

/// What a resource on the wire is to the controller.
pub(super) fn resource(
    image: &ClusterImage,
    kind: i8,
    name: &str,
) -> Result<ConfigResource, Refused> {
    match kind {
        TOPIC => match TopicName::new(name) {
            Ok(_) => Ok(ConfigResource::Topic(name.to_owned())),
            Err(error) => Err(Refused::new(ErrorCode::InvalidTopic, error.to_string())),
        },
        BROKER if name.is_empty() => Ok(ConfigResource::Broker(None)),
        BROKER => match name.parse().ok().map(BrokerId) {
            Some(broker) if image.broker(broker).is_some() => {
                Ok(ConfigResource::Broker(Some(broker)))
            }
            Some(_) | None => Err(Refused::invalid(format!(
                "no broker has the number {:?}",
                name.chars().take(32).collect::<String>()
            ))),
        },
        other => Err(Refused::invalid(format!(
            "resources of type {other} have no settings: {TOPIC} is a topic, {BROKER} a broker"
        ))),
    }
}

/// What a setting without its value is told.
pub(super) fn without_value(name: &str) -> Refused {
    Refused::invalid(format!("setting {name} is to be set and has no value"))
}

/// What a resource takes in a question to the controller, by estimate.
fn weight_bytes(alteration: &ConfigAlteration) -> usize {
    let changes = alteration.changes.iter().map(|change| {
        let value = match &change.op {
            ConfigOp::Set(value) | ConfigOp::Append(value) | ConfigOp::Subtract(value) => {
                value.len()
            }
            ConfigOp::Delete => 0,
        };
        64 + change.name.len() + value
    });
    let name = match &alteration.resource {
        ConfigResource::Topic(name) => name.len(),
        ConfigResource::Broker(_) => 0,
    };
    96 + name + changes.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_protocol::cluster::ClusterId;

    #[test]
    fn only_topics_and_brokers_have_settings() {
        let image = ClusterImage::empty(ClusterId([1; 16]));
        let resource = |kind, name| resource(&image, kind, name).map_err(|refused| refused.code);
        assert_eq!(resource(TOPIC, "t"), Ok(ConfigResource::Topic("t".into())));
        assert_eq!(resource(TOPIC, "a/b"), Err(ErrorCode::InvalidTopic));
        assert_eq!(resource(BROKER, ""), Ok(ConfigResource::Broker(None)));
        for (kind, name) in
            [(BROKER, "1"), (BROKER, "one"), (0, "x"), (8, "1"), (-1, ""), (16, "x")]
        {
            assert_eq!(resource(kind, name), Err(ErrorCode::InvalidRequest), "{kind} {name}");
        }
    }

    #[test]
    fn a_setting_without_a_value_is_refused_by_name() {
        let config = AlterableConfig { name: "retention.ms".into(), value: None };
        let refused = replaced(&config).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
        assert!(refused.message.contains("retention.ms"), "{}", refused.message);
    }
}
