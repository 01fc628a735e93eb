//! Kafka's error codes: numbers, names, and whether trying again can help. `[P]`
//! Source: <https://kafka.apache.org/protocol#protocol_error_codes>; which are retriable follows the Java client.

use std::fmt;

/// Makes the enum and its three functions from one table.
macro_rules! error_codes {
    ($($(#[$attribute:meta])? $code:literal $variant:ident $name:literal $retriable:literal $doc:literal)*) => {
        /// What a response says about its request, or about a part of it.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(
                #[doc = concat!("`", $name, "`: ", $doc, ".")]
                $(#[$attribute])?
                $variant = $code,
            )*
        }

        impl ErrorCode {
            /// All of them, by rising number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The error with that number on the wire; a newer Kafka may know more.
            pub const fn from_i16(code: i16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Kafka's name of it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// A sentence on it, lower case, without a full stop.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $doc,)*
                }
            }

            /// Whether the same request can succeed later. Codes that are not listed are final for most clients.
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(Self::$variant => $retriable,)*
                }
            }
        }
    };
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn to_i16(self) -> i16 {
        self as i16
    }

    /// Whether it is an error at all.
    pub const fn is_error(self) -> bool {
        !matches!(self, Self::None)
    }
}

impl From<ErrorCode> for i16 {
    fn from(code: ErrorCode) -> Self {
        code.to_i16()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.to_i16())
    }
}

error_codes! {
    -1 UnknownServerError "UNKNOWN_SERVER_ERROR" false "the broker cannot say what went wrong"
    #[default]
    0 None "NONE" false "no error"
    1 OffsetOutOfRange "OFFSET_OUT_OF_RANGE" false "the offset lies outside of what the log holds"
    2 CorruptMessage "CORRUPT_MESSAGE" true "a checksum is wrong or a batch is damaged"
    3 UnknownTopicOrPartition "UNKNOWN_TOPIC_OR_PARTITION" true "this broker does not host that topic or partition"
    4 InvalidFetchSize "INVALID_FETCH_SIZE" false "the asked number of bytes makes no sense"
    5 LeaderNotAvailable "LEADER_NOT_AVAILABLE" true "no leader yet; an election is under way"
    6 NotLeaderOrFollower "NOT_LEADER_OR_FOLLOWER" true "the leader is another broker"
    7 RequestTimedOut "REQUEST_TIMED_OUT" true "the time ran out"
    8 BrokerNotAvailable "BROKER_NOT_AVAILABLE" false "the broker is not available"
    9 ReplicaNotAvailable "REPLICA_NOT_AVAILABLE" true "the replica is not available"
    10 MessageTooLarge "MESSAGE_TOO_LARGE" false "a batch is larger than the topic allows"
    11 StaleControllerEpoch "STALE_CONTROLLER_EPOCH" false "the controller has moved on"
    12 OffsetMetadataTooLarge "OFFSET_METADATA_TOO_LARGE" false "the note with a group offset is too long"
    13 NetworkException "NETWORK_EXCEPTION" true "the connection broke before the answer"
    14 CoordinatorLoadInProgress "COORDINATOR_LOAD_IN_PROGRESS" true "the owner of the group is still loading"
    15 CoordinatorNotAvailable "COORDINATOR_NOT_AVAILABLE" true "no owner of the group yet"
    16 NotCoordinator "NOT_COORDINATOR" true "another broker owns the group"
    17 InvalidTopic "INVALID_TOPIC_EXCEPTION" false "the topic has a name that is not allowed, or may not be used so"
    18 RecordListTooLarge "RECORD_LIST_TOO_LARGE" false "a batch is larger than a segment"
    19 NotEnoughReplicas "NOT_ENOUGH_REPLICAS" true "fewer replicas in sync than required; nothing was appended"
    20 NotEnoughReplicasAfterAppend "NOT_ENOUGH_REPLICAS_AFTER_APPEND" true "appended, but fewer replicas in sync than required"
    21 InvalidRequiredAcks "INVALID_REQUIRED_ACKS" false "acks is none of -1, 0 and 1"
    22 IllegalGeneration "ILLEGAL_GENERATION" false "the generation is not the group's current one"
    23 InconsistentGroupProtocol "INCONSISTENT_GROUP_PROTOCOL" false "no assignor in common with the other members"
    24 InvalidGroupId "INVALID_GROUP_ID" false "the name of the group is not allowed"
    25 UnknownMemberId "UNKNOWN_MEMBER_ID" false "the group does not know that member"
    26 InvalidSessionTimeout "INVALID_SESSION_TIMEOUT" false "the session timeout is outside of what the broker allows"
    27 RebalanceInProgress "REBALANCE_IN_PROGRESS" false "the group rebalances; join again"
    28 InvalidCommitOffsetSize "INVALID_COMMIT_OFFSET_SIZE" false "the group offsets are too large"
    29 TopicAuthorizationFailed "TOPIC_AUTHORIZATION_FAILED" false "not allowed to use that topic"
    30 GroupAuthorizationFailed "GROUP_AUTHORIZATION_FAILED" false "not allowed to use that group"
    31 ClusterAuthorizationFailed "CLUSTER_AUTHORIZATION_FAILED" false "not allowed to do that with the cluster"
    32 InvalidTimestamp "INVALID_TIMESTAMP" false "a record is too old or too far in the future"
    33 UnsupportedSaslMechanism "UNSUPPORTED_SASL_MECHANISM" false "no such way to log in"
    34 IllegalSaslState "ILLEGAL_SASL_STATE" false "not possible in this state of the log-in"
    35 UnsupportedVersion "UNSUPPORTED_VERSION" false "no such version of that API"
    36 TopicAlreadyExists "TOPIC_ALREADY_EXISTS" false "there is a topic of that name"
    37 InvalidPartitions "INVALID_PARTITIONS" false "the number of partitions makes no sense"
    38 InvalidReplicationFactor "INVALID_REPLICATION_FACTOR" false "the number of replicas makes no sense or there are too few brokers"
    39 InvalidReplicaAssignment "INVALID_REPLICA_ASSIGNMENT" false "the chosen replicas make no sense"
    40 InvalidConfig "INVALID_CONFIG" false "a setting makes no sense"
    41 NotController "NOT_CONTROLLER" true "this broker does not act for the controller"
    42 InvalidRequest "INVALID_REQUEST" false "the request contradicts itself"
    43 UnsupportedForMessageFormat "UNSUPPORTED_FOR_MESSAGE_FORMAT" false "the format of the records on disk cannot do that"
    44 PolicyViolation "POLICY_VIOLATION" false "a policy of the cluster forbids it"
    45 OutOfOrderSequenceNumber "OUT_OF_ORDER_SEQUENCE_NUMBER" false "a sequence number is missing between this batch and the last"
    46 DuplicateSequenceNumber "DUPLICATE_SEQUENCE_NUMBER" false "the batch was there already"
    47 InvalidProducerEpoch "INVALID_PRODUCER_EPOCH" false "the producer has an old epoch"
    48 InvalidTxnState "INVALID_TXN_STATE" false "not possible in this state of the transaction"
    49 InvalidProducerIdMapping "INVALID_PRODUCER_ID_MAPPING" false "the producer id belongs to another transactional id"
    50 InvalidTransactionTimeout "INVALID_TRANSACTION_TIMEOUT" false "the transaction timeout is longer than the broker allows"
    51 ConcurrentTransactions "CONCURRENT_TRANSACTIONS" true "another operation on the same transaction is under way"
    52 TransactionCoordinatorFenced "TRANSACTION_COORDINATOR_FENCED" false "the owner of the transaction has been replaced"
    53 TransactionalIdAuthorizationFailed "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" false "not allowed to use that transactional id"
    54 SecurityDisabled "SECURITY_DISABLED" false "no security is configured"
    55 OperationNotAttempted "OPERATION_NOT_ATTEMPTED" false "not tried, because another part of the request failed"
    56 KafkaStorageError "KAFKA_STORAGE_ERROR" true "the disk failed"
    57 LogDirNotFound "LOG_DIR_NOT_FOUND" false "no such log directory"
    58 SaslAuthenticationFailed "SASL_AUTHENTICATION_FAILED" false "the log-in failed"
    59 UnknownProducerId "UNKNOWN_PRODUCER_ID" false "nothing is known of that producer id"
    60 ReassignmentInProgress "REASSIGNMENT_IN_PROGRESS" false "replicas of the partition are being moved"
    61 DelegationTokenAuthDisabled "DELEGATION_TOKEN_AUTH_DISABLED" false "delegation tokens are off"
    62 DelegationTokenNotFound "DELEGATION_TOKEN_NOT_FOUND" false "no such delegation token"
    63 DelegationTokenOwnerMismatch "DELEGATION_TOKEN_OWNER_MISMATCH" false "the delegation token is somebody else's"
    64 DelegationTokenRequestNotAllowed "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED" false "no delegation tokens over this connection"
    65 DelegationTokenAuthorizationFailed "DELEGATION_TOKEN_AUTHORIZATION_FAILED" false "not allowed to use that delegation token"
    66 DelegationTokenExpired "DELEGATION_TOKEN_EXPIRED" false "the delegation token is too old"
    67 InvalidPrincipalType "INVALID_PRINCIPAL_TYPE" false "that kind of principal is not supported"
    68 NonEmptyGroup "NON_EMPTY_GROUP" false "the group still has members"
    69 GroupIdNotFound "GROUP_ID_NOT_FOUND" false "no such group"
    70 FetchSessionIdNotFound "FETCH_SESSION_ID_NOT_FOUND" true "no such fetch session"
    71 InvalidFetchSessionEpoch "INVALID_FETCH_SESSION_EPOCH" true "the request is not the next one of its fetch session"
    72 ListenerNotFound "LISTENER_NOT_FOUND" true "the leader has no listener of that name"
    73 TopicDeletionDisabled "TOPIC_DELETION_DISABLED" false "topics may not be deleted here"
    74 FencedLeaderEpoch "FENCED_LEADER_EPOCH" true "the client's leader epoch is older than the broker's"
    75 UnknownLeaderEpoch "UNKNOWN_LEADER_EPOCH" true "the client's leader epoch is newer than the broker's"
    76 UnsupportedCompressionType "UNSUPPORTED_COMPRESSION_TYPE" false "that compression is not possible in this version"
    77 StaleBrokerEpoch "STALE_BROKER_EPOCH" false "the broker has registered anew since"
    78 OffsetNotAvailable "OFFSET_NOT_AVAILABLE" true "after an election the leader does not know the offset yet"
    79 MemberIdRequired "MEMBER_ID_REQUIRED" false "join again with the member id given here"
    80 PreferredLeaderNotAvailable "PREFERRED_LEADER_NOT_AVAILABLE" true "the preferred leader is not available"
    81 GroupMaxSizeReached "GROUP_MAX_SIZE_REACHED" false "the group has as many members as it may have"
    82 FencedInstanceId "FENCED_INSTANCE_ID" false "another member has taken over that static id"
    83 EligibleLeadersNotAvailable "ELIGIBLE_LEADERS_NOT_AVAILABLE" true "no replica that may lead is available"
    84 ElectionNotNeeded "ELECTION_NOT_NEEDED" true "the partition has the right leader"
    85 NoReassignmentInProgress "NO_REASSIGNMENT_IN_PROGRESS" false "no replicas are being moved"
    86 GroupSubscribedToTopic "GROUP_SUBSCRIBED_TO_TOPIC" false "the group still reads that topic"
    87 InvalidRecord "INVALID_RECORD" false "a record or its batch is not allowed"
    88 UnstableOffsetCommit "UNSTABLE_OFFSET_COMMIT" true "a transaction may still change the group offsets"
    89 ThrottlingQuotaExceeded "THROTTLING_QUOTA_EXCEEDED" true "the quota is used up"
    90 ProducerFenced "PRODUCER_FENCED" false "a newer producer has the same transactional id"
    91 ResourceNotFound "RESOURCE_NOT_FOUND" false "no such thing"
    92 DuplicateResource "DUPLICATE_RESOURCE" false "the same thing twice in one request"
    93 UnacceptableCredential "UNACCEPTABLE_CREDENTIAL" false "the credential does not meet the rules"
    94 InconsistentVoterSet "INCONSISTENT_VOTER_SET" false "the set of voters is not ours"
    95 InvalidUpdateVersion "INVALID_UPDATE_VERSION" false "the feature cannot be set to that level"
    96 FeatureUpdateFailed "FEATURE_UPDATE_FAILED" false "the features could not be changed"
    97 PrincipalDeserializationFailure "PRINCIPAL_DESERIALIZATION_FAILURE" false "the forwarded principal cannot be read"
    98 SnapshotNotFound "SNAPSHOT_NOT_FOUND" false "no such snapshot"
    99 PositionOutOfRange "POSITION_OUT_OF_RANGE" false "the position lies outside of the snapshot"
    100 UnknownTopicId "UNKNOWN_TOPIC_ID" true "this broker does not host that topic id"
    101 DuplicateBrokerRegistration "DUPLICATE_BROKER_REGISTRATION" false "another broker has that number"
    102 BrokerIdNotRegistered "BROKER_ID_NOT_REGISTERED" false "no broker with that number is registered"
    103 InconsistentTopicId "INCONSISTENT_TOPIC_ID" true "the log belongs to another topic id"
    104 InconsistentClusterId "INCONSISTENT_CLUSTER_ID" false "the other side belongs to another cluster"
    105 TransactionalIdNotFound "TRANSACTIONAL_ID_NOT_FOUND" false "no such transactional id"
    106 FetchSessionTopicIdError "FETCH_SESSION_TOPIC_ID_ERROR" true "the fetch session mixes topic names and ids"
    107 IneligibleReplica "INELIGIBLE_REPLICA" false "a replica is not eligible to be in sync"
    108 NewLeaderElected "NEW_LEADER_ELECTED" false "done, but the leader is another now"
    109 OffsetMovedToTieredStorage "OFFSET_MOVED_TO_TIERED_STORAGE" false "the records have moved to tiered storage"
    110 FencedMemberEpoch "FENCED_MEMBER_EPOCH" false "the member's epoch is old; it has to give up its partitions and join again"
    111 UnreleasedInstanceId "UNRELEASED_INSTANCE_ID" false "another member still uses that static id"
    112 UnsupportedAssignor "UNSUPPORTED_ASSIGNOR" false "no such assignor"
    113 StaleMemberEpoch "STALE_MEMBER_EPOCH" false "the member's epoch is old; try with the new one"
    114 MismatchedEndpointType "MISMATCHED_ENDPOINT_TYPE" false "meant for the other kind of endpoint"
    115 UnsupportedEndpointType "UNSUPPORTED_ENDPOINT_TYPE" false "that kind of endpoint is not supported"
    116 UnknownControllerId "UNKNOWN_CONTROLLER_ID" false "no such controller"
    117 UnknownSubscriptionId "UNKNOWN_SUBSCRIPTION_ID" false "no such telemetry subscription"
    118 TelemetryTooLarge "TELEMETRY_TOO_LARGE" false "too much telemetry at once"
    119 InvalidRegistration "INVALID_REGISTRATION" false "the controller refuses the broker's registration"
    120 TransactionAbortable "TRANSACTION_ABORTABLE" false "the transaction has to be aborted"
    121 InvalidRecordState "INVALID_RECORD_STATE" false "the record is not in a state to be acknowledged"
    122 ShareSessionNotFound "SHARE_SESSION_NOT_FOUND" true "no such share session"
    123 InvalidShareSessionEpoch "INVALID_SHARE_SESSION_EPOCH" true "the request is not the next one of its share session"
    124 FencedStateEpoch "FENCED_STATE_EPOCH" false "the share group's state has a newer epoch"
    125 InvalidVoterKey "INVALID_VOTER_KEY" false "the voter's key is another"
    126 DuplicateVoter "DUPLICATE_VOTER" false "there is such a voter"
    127 VoterNotFound "VOTER_NOT_FOUND" false "no such voter"
    128 InvalidRegularExpression "INVALID_REGULAR_EXPRESSION" false "the regular expression cannot be read"
    129 RebootstrapRequired "REBOOTSTRAP_REQUIRED" false "the client has to start anew from its bootstrap addresses"
    130 StreamsInvalidTopology "STREAMS_INVALID_TOPOLOGY" false "the topology makes no sense"
    131 StreamsInvalidTopologyEpoch "STREAMS_INVALID_TOPOLOGY_EPOCH" false "the topology's epoch makes no sense"
    132 StreamsTopologyFenced "STREAMS_TOPOLOGY_FENCED" false "the topology's epoch is old"
    133 ShareSessionLimitReached "SHARE_SESSION_LIMIT_REACHED" true "there are as many share sessions as there may be"
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn every_code_is_found_by_its_number() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_i16(code.to_i16()), Some(*code));
        }
        assert!(ErrorCode::ALL.is_sorted());
        assert_eq!(ErrorCode::from_i16(-2), None);
        assert_eq!(ErrorCode::from_i16(1000), None);
    }

    #[test]
    fn none_is_the_default_and_no_error() {
        assert_eq!(ErrorCode::default(), ErrorCode::None);
        assert!(!ErrorCode::None.is_error());
        assert!(ErrorCode::UnknownServerError.is_error());
        assert_eq!(ErrorCode::NotLeaderOrFollower.to_string(), "NOT_LEADER_OR_FOLLOWER (6)");
    }
}
