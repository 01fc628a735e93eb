//! What is known of the cluster: its brokers, its topics, who leads which partition. `[P]`

use std::collections::BTreeMap;
use std::sync::Arc;

use levada_protocol::kafka::metadata::{
    MetadataResponse, MetadataResponsePartition, MetadataResponseTopic,
};
use levada_record::TopicId;

use crate::error::Refusal;

/// A broker and where to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: i32,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Rack or availability zone.
    pub rack: Option<String>,
}

impl Node {
    /// `host:port`, an IPv6 host in brackets.
    pub fn address(&self) -> String {
        self.address_at(self.port)
    }

    /// The same with another port.
    pub fn address_at(&self, port: u16) -> String {
        let host = &self.host;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// Where the leader of a partition takes requests for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Home {
    /// The leader.
    pub broker: i32,
    /// The port of the core that has the partition, where there is one for it alone.
    pub port: Option<u16>,
}

/// A partition and its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionView {
    /// Which partition.
    pub index: i32,
    /// Its leader, when there is one.
    pub leader: Option<i32>,
    /// The leader's reign, -1 when unknown.
    pub leader_epoch: i32,
    /// Port of the leader's core that has the partition; none when the broker offers none.
    pub port: Option<u16>,
    /// Brokers with a replica, preferred leader first.
    pub replicas: Vec<i32>,
    /// Those that keep up.
    pub isr: Vec<i32>,
    /// Those that are gone.
    pub offline: Vec<i32>,
    /// Why it cannot be used.
    pub error: Option<Refusal>,
}

impl PartitionView {
    fn from_response(partition: &MetadataResponsePartition) -> Self {
        Self {
            index: partition.partition_index,
            leader: (0 <= partition.leader_id).then_some(partition.leader_id),
            leader_epoch: partition.leader_epoch,
            port: u16::try_from(partition.levada_port).ok().filter(|port| *port != 0),
            replicas: partition.replica_nodes.clone(),
            isr: partition.isr_nodes.clone(),
            offline: partition.offline_replicas.clone(),
            error: Refusal::check(partition.error_code, None).err(),
        }
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; zero when the broker is too old to tell.
    pub id: TopicId,
    /// Whether it belongs to the broker itself.
    pub internal: bool,
    /// By rising index, each once.
    pub partitions: Vec<PartitionView>,
}

impl TopicView {
    fn from_response(name: &str, topic: &MetadataResponseTopic<'_>) -> Self {
        let mut partitions: Vec<_> = topic
            .partitions
            .iter()
            .filter(|partition| 0 <= partition.partition_index)
            .map(PartitionView::from_response)
            .collect();
        partitions.sort_by_key(|partition| partition.index);
        partitions.dedup_by_key(|partition| partition.index);
        Self {
            name: Arc::from(name),
            id: TopicId(topic.topic_id.0),
            internal: topic.is_internal,
            partitions,
        }
    }

    /// The partition with that index.
    pub fn partition(&self, index: i32) -> Option<&PartitionView> {
        let at = self.partitions.binary_search_by_key(&index, |partition| partition.index).ok()?;
        self.partitions.get(at)
    }

    /// Keeps leaders that are newer than what an old broker said.
    fn keep_newer(&mut self, known: &TopicView) {
        if self.id != known.id {
            return;
        }
        for partition in &mut self.partitions {
            match known.partition(partition.index) {
                Some(known) if partition.leader_epoch < known.leader_epoch => {
                    *partition = known.clone();
                }
                _ => {}
            }
        }
    }
}

/// Which topics a metadata request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// Every topic.
    All,
    /// These.
    Topics(&'a [&'a str]),
}

/// The cluster as one answer, or several, described it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Its name, when it has one.
    pub cluster_id: Option<String>,
    /// A broker that takes requests for the controller.
    pub controller: Option<i32>,
    /// Brokers that are alive, by number.
    pub nodes: BTreeMap<i32, Node>,
    /// Topics that were asked for and exist, by name.
    pub topics: BTreeMap<Arc<str>, TopicView>,
}

impl ClusterView {
    /// This view after an answer to `asked`: brokers are replaced, topics that were asked for too;
    /// the errors are those of topics that were asked for and cannot be used.
    pub fn after(
        &self,
        asked: Asked<'_>,
        response: &MetadataResponse<'_>,
    ) -> (ClusterView, Vec<(Arc<str>, Refusal)>) {
        let nodes = response.brokers.iter().filter_map(|broker| {
            let port = u16::try_from(broker.port).ok().filter(|port| *port != 0)?;
            let rack = broker.rack.as_deref().map(str::to_owned);
            Some((
                broker.node_id,
                Node { id: broker.node_id, host: broker.host.to_string(), port, rack },
            ))
        });
        let mut view = ClusterView {
            cluster_id: response.cluster_id.as_deref().map(str::to_owned),
            controller: (0 <= response.controller_id).then_some(response.controller_id),
            nodes: nodes.collect(),
            topics: BTreeMap::new(),
        };
        if let Asked::Topics(names) = asked {
            view.topics = self.topics.clone();
            for name in names {
                view.topics.remove(*name);
            }
        }
        let mut errors = Vec::new();
        for topic in &response.topics {
            let Some(name) = topic.name.as_deref() else { continue };
            if let Err(refusal) = Refusal::check(topic.error_code, None) {
                errors.push((Arc::from(name), refusal));
                continue;
            }
            let mut topic = TopicView::from_response(name, topic);
            if let Some(known) = self.topics.get(name) {
                topic.keep_newer(known);
            }
            view.topics.insert(Arc::clone(&topic.name), topic);
        }
        (view, errors)
    }

    /// Where requests for that partition go, as far as is known.
    pub fn home(&self, topic: &str, partition: i32) -> Option<Home> {
        let broker = self.leader(topic, partition)?;
        let port = self.topics.get(topic)?.partition(partition)?.port;
        Some(Home { broker, port })
    }

    /// Who leads that partition, as far as is known.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let leader = self.topics.get(topic)?.partition(partition)?.leader?;
        self.nodes.contains_key(&leader).then_some(leader)
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::kafka::metadata::MetadataResponseBroker;

    use super::*;

    fn partition(index: i32, leader: i32, epoch: i32) -> MetadataResponsePartition {
        MetadataResponsePartition {
            partition_index: index,
            leader_id: leader,
            leader_epoch: epoch,
            ..Default::default()
        }
    }

    fn topic(
        name: &'static str,
        error_code: i16,
        partitions: Vec<MetadataResponsePartition>,
    ) -> MetadataResponseTopic<'static> {
        MetadataResponseTopic {
            name: Some(name.into()),
            error_code,
            partitions,
            ..Default::default()
        }
    }

    fn response(topics: Vec<MetadataResponseTopic<'static>>) -> MetadataResponse<'static> {
        let brokers = [1, 2].map(|node_id| MetadataResponseBroker {
            node_id,
            host: "::1".into(),
            port: 9092,
            rack: None,
        });
        MetadataResponse { brokers: brokers.into(), topics, controller_id: 2, ..Default::default() }
    }

    #[test]
    fn an_answer_replaces_what_was_asked_for_and_keeps_the_rest() {
        let first = response(vec![topic("a", 0, vec![partition(0, 1, 5)]), topic("b", 0, vec![])]);
        let (view, errors) = ClusterView::default().after(Asked::All, &first);
        assert_eq!((errors.len(), view.topics.len(), view.controller), (0, 2, Some(2)));
        assert_eq!(view.leader("a", 0), Some(1));
        assert_eq!(view.nodes[&1].address(), "[::1]:9092");

        let second = response(vec![topic("a", 3, vec![])]);
        let (view, errors) = view.after(Asked::Topics(&["a"]), &second);
        assert_eq!(errors.len(), 1);
        assert_eq!(view.topics.keys().map(|name| &**name).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn an_older_leader_epoch_does_not_replace_a_newer() {
        let (view, _) = ClusterView::default()
            .after(Asked::All, &response(vec![topic("a", 0, vec![partition(0, 2, 6)])]));
        let (view, _) = view
            .after(Asked::Topics(&["a"]), &response(vec![topic("a", 0, vec![partition(0, 1, 5)])]));
        assert_eq!(view.leader("a", 0), Some(2));
        let (view, _) = view
            .after(Asked::Topics(&["a"]), &response(vec![topic("a", 0, vec![partition(0, 1, 7)])]));
        assert_eq!(view.leader("a", 0), Some(1));
    }

    #[test]
    fn a_partition_is_at_home_where_its_core_listens() {
        let mut rows = vec![partition(0, 1, 0), partition(1, 1, 0), partition(2, 2, 0)];
        for (row, port) in rows.iter_mut().zip([9100, 0, 70_000]) {
            row.levada_port = port;
        }
        let (view, _) =
            ClusterView::default().after(Asked::All, &response(vec![topic("a", 0, rows)]));
        let home = |broker, port| Some(Home { broker, port });
        assert_eq!(view.home("a", 0), home(1, Some(9100)));
        assert_eq!(view.home("a", 1), home(1, None));
        assert_eq!(view.home("a", 2), home(2, None), "no such port");
        assert_eq!(view.home("a", 3), None);
        assert_eq!(view.nodes[&1].address_at(9100), "[::1]:9100");
    }

    #[test]
    fn senseless_rows_lead_nowhere() {
        let rows =
            vec![partition(-4, 1, 0), partition(1, 1, 0), partition(1, 2, 0), partition(2, 77, 0)];
        let (view, _) =
            ClusterView::default().after(Asked::All, &response(vec![topic("a", 0, rows)]));
        let topic = &view.topics["a"];
        assert_eq!(topic.partitions.iter().map(|p| p.index).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(view.leader("a", 2), None, "a leader that is no broker");
        assert_eq!(view.leader("a", -4), None);
    }
}
