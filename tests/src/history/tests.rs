use super::*;

/// Three acknowledged values of one producer at offsets 0, 1 and 2.
fn three() -> History {
    let mut history = History::default();
    for offset in 0..3 {
        let value = history.invoke(0, 7);
        history.acked(value, offset).unwrap();
    }
    history
}

#[test]
fn a_log_that_holds_what_was_acknowledged_in_order_is_fine() {
    assert_eq!(three().check(0, &[(0, 0), (1, 1), (2, 2)]), []);
}

#[test]
fn an_acknowledged_value_that_is_gone_is_a_lost_write() {
    let found = three().check(0, &[(0, 0), (2, 2)]);
    assert_eq!(found, [Anomaly::Lost { partition: 0, value: 1, offset: 1 }]);
}

#[test]
fn truncation_log_start_and_reported_damage_excuse_a_loss() {
    let mut history = three();
    history.truncated(0, 2);
    assert_eq!(history.check(0, &[(0, 0), (1, 1)]), []);
    let mut history = three();
    history.log_start(0, 2);
    assert_eq!(history.check(0, &[(2, 2)]), []);
    let mut history = three();
    history.excuse(0, 1);
    assert_eq!(history.check(0, &[(0, 0)]), []);
}

#[test]
fn two_values_at_one_offset_are_seen_by_readers_and_by_acknowledgements() {
    let mut history = three();
    let value = history.invoke(0, 8);
    assert!(matches!(history.read(0, 1, value), Err(Anomaly::Inconsistent { .. })));
    let mut history = three();
    assert_eq!(history.read(0, 2, 2), Ok(()));
    let value = history.invoke(0, 8);
    assert!(matches!(history.acked(value, 2), Err(Anomaly::Inconsistent { .. })));
}

#[test]
fn one_value_at_two_offsets_is_a_duplicate() {
    let found = three().check(0, &[(0, 0), (1, 1), (2, 2), (3, 1)]);
    assert!(found.contains(&Anomaly::Duplicate { partition: 0, value: 1, offsets: (1, 3) }));
}

#[test]
fn a_producers_order_and_real_time_order_are_kept() {
    let mut history = History::default();
    let (first, second) = (history.invoke(0, 1), history.invoke(0, 1));
    let found = history.check(0, &[(0, second), (1, first)]);
    assert_eq!(found, [Anomaly::Order { partition: 0, first: second, second: first }]);
    // Another producer's value was acknowledged before this one was sent, yet stands behind it.
    let mut history = History::default();
    let early = history.invoke(0, 1);
    history.acked(early, 1).unwrap();
    let late = history.invoke(0, 2);
    let found = history.check(0, &[(0, late), (1, early)]);
    assert_eq!(found, [Anomaly::Order { partition: 0, first: late, second: early }]);
}

#[test]
fn values_that_failed_or_that_nobody_sent_must_not_appear() {
    let mut history = History::default();
    let value = history.invoke(0, 1);
    history.failed(value);
    assert_eq!(history.check(0, &[(0, value)]).len(), 1);
    assert_eq!(history.check(0, &[(0, 99)]).len(), 1);
    assert!(history.read(0, 0, value).is_err());
    assert!(history.read(0, 0, 99).is_err());
}
