//! Settings of topics and brokers: show and change.

use levada_protocol::kafka::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
};
use levada_protocol::kafka::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::{Admin, check, first_code, left_out};
use crate::error::ClientError;

/// Whose settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// The topic of that name.
    Topic(String),
    /// The broker with that number.
    Broker(i32),
}

impl Resource {
    fn wire_type(&self) -> i8 {
        match self {
            Self::Topic(_) => 2,
            Self::Broker(_) => 4,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Topic(name) => name.clone(),
            Self::Broker(id) => id.to_string(),
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::Topic(name) => format!("topic {name}"),
            Self::Broker(id) => format!("broker {id}"),
        }
    }
}

/// Where the value of a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// It was set for this topic.
    Topic,
    /// It was set for this broker.
    Broker,
    /// The broker's configuration file.
    File,
    /// Nobody set it.
    Default,
    /// Something else, by Kafka's number.
    Other(i8),
}

impl ConfigSource {
    fn from_wire(source: i8) -> Self {
        match source {
            1 => Self::Topic,
            2 => Self::Broker,
            4 => Self::File,
            5 => Self::Default,
            other => Self::Other(other),
        }
    }

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Broker => "broker",
            Self::File => "file",
            Self::Default => "default",
            Self::Other(_) => "other",
        }
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value; `None` when the broker does not show it.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it can be changed.
    pub read_only: bool,
    /// A sentence on it.
    pub documentation: Option<String>,
}

/// A change of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// Name and value.
    Set(String, String),
    /// Back to the default.
    Reset(String),
}

impl Admin {
    /// All settings of a topic or broker.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn describe_configs(
        &self,
        resource: &Resource,
    ) -> Result<Vec<ConfigEntry>, ClientError> {
        let connection = match resource {
            Resource::Topic(_) => self.cluster.any().await?,
            Resource::Broker(id) => self.cluster.node(*id).await?,
        };
        // Documentation is only asked for where it can be.
        let version = connection.version(levada_protocol::kafka::ApiKey::DescribeConfigs)?;
        let name = resource.name();
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: resource.wire_type(),
                resource_name: name.as_str().into(),
                configuration_keys: None,
            }],
            include_synonyms: false,
            include_documentation: 3 <= version,
        };
        let reply = connection.call(&request).await?;
        let response: DescribeConfigsResponse<'_> = reply.body()?;
        let row = response.results.iter().find(|row| row.resource_name == name);
        let row = row.ok_or_else(|| left_out(&resource.subject()))?;
        check(&resource.subject(), row.error_code, row.error_message.as_deref())?;
        let entries = row.configs.iter().map(|config| ConfigEntry {
            name: config.name.to_string(),
            value: config.value.as_deref().filter(|_| !config.is_sensitive).map(str::to_owned),
            source: ConfigSource::from_wire(config.config_source),
            read_only: config.read_only,
            documentation: config.documentation.as_deref().map(str::to_owned),
        });
        Ok(entries.collect())
    }

    /// Changes settings of a topic or broker; all or none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn alter_configs(
        &self,
        resource: &Resource,
        changes: &[ConfigChange],
    ) -> Result<(), ClientError> {
        let configs = changes.iter().map(|change| match change {
            ConfigChange::Set(name, value) => AlterableConfig {
                name: name.as_str().into(),
                config_operation: 0,
                value: Some(value.as_str().into()),
            },
            ConfigChange::Reset(name) => {
                AlterableConfig { name: name.as_str().into(), config_operation: 1, value: None }
            }
        });
        let name = resource.name();
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: resource.wire_type(),
                resource_name: name.as_str().into(),
                configs: configs.collect(),
            }],
            validate_only: false,
        };
        let reply = self
            .change(&request, |reply| {
                let response: IncrementalAlterConfigsResponse<'_> = reply.body()?;
                Ok(first_code(response.responses.iter().map(|row| row.error_code)))
            })
            .await?;
        let response: IncrementalAlterConfigsResponse<'_> = reply.body()?;
        let row = response.responses.iter().find(|row| row.resource_name == name);
        let row = row.ok_or_else(|| left_out(&resource.subject()))?;
        check(&resource.subject(), row.error_code, row.error_message.as_deref())
    }
}
