use serde_json::json;

use super::*;

const LIMITS: Limits = Limits { history_revisions: 1_000, history_bytes: 1 << 20, live_bytes: 1 << 20 };

fn object(text: &str) -> Option<Arc<Object>> {
    Some(Arc::new(Object::encode(&json!({"metadata": {"name": "n"}, "data": text}), &["/data"])))
}

fn write(key: &str, expect: Expect, next: Option<Arc<Object>>) -> Write {
    Write { table: "t".into(), key: key.into(), expect, next, guards: Vec::new() }
}

fn put(store: &Store, key: &str, text: &str) -> u64 {
    let expect = store.get("t", key).map_or(Expect::Absent, |found| Expect::Revision(found.revision));
    store.commit(write(key, expect, object(text)), Mode::Commit).unwrap()
}

fn remove(store: &Store, key: &str) -> u64 {
    let revision = store.get("t", key).unwrap().revision;
    store.commit(write(key, Expect::Revision(revision), None), Mode::Commit).unwrap()
}

fn contents(store: &Store, at: u64) -> Vec<(String, String)> {
    let page = store.scan("t", &Range::default(), Some(at), usize::MAX, |_, _| true).unwrap();
    page.items.iter().map(|found| (found.key.to_string(), found.object.field(0).to_owned())).collect()
}

#[test]
fn a_scan_at_an_old_revision_sees_what_was_there_then() {
    let store = Store::new(LIMITS);
    let first = put(&store, "a/x", "1");
    let second = put(&store, "a/x", "2");
    let third = remove(&store, "a/x");
    assert_eq!(contents(&store, first), [("a/x".to_owned(), "1".to_owned())]);
    assert_eq!(contents(&store, second), [("a/x".to_owned(), "2".to_owned())]);
    assert!(contents(&store, third).is_empty());
    assert!(contents(&store, first - 1).is_empty());
}

#[test]
fn compaction_keeps_the_state_at_its_revision_and_refuses_what_is_below() {
    let store = Store::new(LIMITS);
    let first = put(&store, "a", "1");
    let second = put(&store, "a", "2");
    put(&store, "a", "3");
    store.compact(second).unwrap();
    assert_eq!(contents(&store, second), [("a".to_owned(), "2".to_owned())]);
    let refused = store.scan("t", &Range::default(), Some(first), 1, |_, _| true).unwrap_err();
    assert_eq!(refused, ReadError::Compacted { compacted: second });
    assert_eq!(store.changes("t", first, 10).unwrap_err(), ReadError::Compacted { compacted: second });
}

#[test]
fn compaction_of_everything_leaves_no_history_and_no_removed_keys() {
    let store = Store::new(LIMITS);
    put(&store, "a", "1");
    put(&store, "b", "1");
    put(&store, "b", "2");
    let last = remove(&store, "a");
    store.compact(last).unwrap();
    assert_eq!(contents(&store, last), [("b".to_owned(), "2".to_owned())]);
    let inner = store.read();
    assert_eq!((inner.history_bytes, inner.written.len()), (0, 0));
    assert_eq!(inner.live_bytes, store.get("t", "b").unwrap().object.size());
}

#[test]
fn history_is_bounded_by_revisions_and_by_bytes() {
    let by_revisions = Store::new(Limits { history_revisions: 10, ..LIMITS });
    let by_bytes = Store::new(Limits { history_bytes: 4_000, ..LIMITS });
    for store in [&by_revisions, &by_bytes] {
        for round in 0..100 {
            put(store, "a", &round.to_string());
        }
        let inner = store.read();
        assert!(inner.written.len() <= 20, "{} revisions kept", inner.written.len());
        assert!(inner.history_bytes <= 4_000, "{} bytes kept", inner.history_bytes);
        assert!(inner.compacted > 80);
    }
    assert_eq!(by_bytes.get("t", "a").unwrap().object.field(0), "99");
}

#[test]
fn a_write_is_refused_when_the_key_is_not_as_expected() {
    let store = Store::new(LIMITS);
    let revision = put(&store, "a", "1");
    let refused = |key, expect| store.commit(write(key, expect, object("2")), Mode::Commit).unwrap_err();
    assert_eq!(refused("a", Expect::Absent), WriteError::Exists);
    assert_eq!(refused("b", Expect::Revision(revision)), WriteError::Absent);
    assert_eq!(refused("a", Expect::Revision(revision + 1)), WriteError::Changed);
    assert_eq!(store.revision(), revision);
}

#[test]
fn a_full_store_refuses_new_objects_and_accepts_removals() {
    let store = Store::new(Limits { live_bytes: 1_000, ..LIMITS });
    put(&store, "a", "1");
    let refused = store.commit(write("b", Expect::Absent, object(&"x".repeat(2_000))), Mode::Commit);
    assert_eq!(refused.unwrap_err(), WriteError::Full);
    remove(&store, "a");
}

#[test]
fn keys_sort_as_etcd_sorts_them_and_a_scan_goes_on_after_a_key() {
    let store = Store::new(LIMITS);
    for key in ["a/x", "a-b/x", "a.b/x", "a/y", "b/x"] {
        put(&store, key, "");
    }
    let all: Vec<String> = contents(&store, store.revision()).into_iter().map(|(key, _)| key).collect();
    assert_eq!(all, ["a-b/x", "a.b/x", "a/x", "a/y", "b/x"]);
    let range = Range { prefix: "a/".into(), after: Some("a/x".into()) };
    let page = store.scan("t", &range, None, 1, |_, _| true).unwrap();
    assert_eq!((&*page.items[0].key, page.more), ("a/y", false));
}
