//! Topic settings that would lose history or break a promise are named, with the fix.

use std::collections::HashMap;

use leads_shared::topic;

fn settings(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn a_new_topic_has_no_violation() {
    let spec = topic::events("leads.events.v1", 12);
    let mut actual: Vec<_> = spec.creation_settings().collect();
    actual.push(("max.message.bytes", "1048588"));
    assert!(spec.violations(&settings(&actual)).is_empty());
}

#[test]
fn each_violation_is_named_with_its_fix() {
    let spec = topic::events("t", 12);
    let actual = settings(&[
        ("cleanup.policy", "compact"),
        ("retention.ms", "604800000"),
        ("max.message.bytes", "1000"),
    ]);
    let violations = spec.violations(&actual);
    let named: Vec<_> = violations.iter().map(|v| v.setting).collect();
    assert_eq!(named, ["cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes"]);
    assert!(violations[1].to_string().contains("--add-config retention.ms=-1"));
}

#[test]
fn names_leave_room_for_the_dead_letters() {
    assert!(topic::is_valid_name(&"a".repeat(245)));
    for bad in ["", ".", "..", "a b", "é", &"a".repeat(246)] {
        assert!(!topic::is_valid_name(bad), "{bad}");
    }
}
