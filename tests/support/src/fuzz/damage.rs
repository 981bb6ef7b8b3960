//! Noise, and samples with bytes or JSON values changed.
//!
//! Changes are values, so that a failing input is made smaller by leaving changes out.

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Map, Value, json};

/// A change of bytes; places are taken modulo the length.
#[derive(Debug, Clone)]
enum ByteChange {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Repeat(Index, Index, u8),
    Cut(Index),
    Append(Index),
}

/// A change of one value somewhere in a JSON document.
#[derive(Debug, Clone)]
enum JsonChange {
    Replace(Index, Value),
    Remove(Index),
    Repeat(Index, u8),
    /// Puts a copy of one value where another is.
    Copy(Index, Index),
    Nest(Index, u8),
}

/// Inputs made of these samples, and noise.
pub(super) fn inputs(samples: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let documents: Vec<Value> = samples.iter().filter_map(|sample| serde_json::from_slice(sample).ok()).collect();
    let noise = vec(any::<u8>(), 0..512);
    let all = samples.clone();
    let bytes = (any::<Index>(), vec(byte_change(), 1..5)).prop_map(move |(which, changes)| {
        changes.into_iter().fold(which.get(&all).clone(), |bytes, change| change_bytes(bytes, change, &all))
    });
    if documents.is_empty() {
        return prop_oneof![1 => noise, 9 => bytes].boxed();
    }
    let values = (any::<Index>(), vec(json_change(), 1..4)).prop_map(move |(which, changes)| {
        let changed = changes.into_iter().fold(which.get(&documents).clone(), change_json);
        changed.to_string().into_bytes()
    });
    prop_oneof![1 => noise, 4 => bytes, 5 => values].boxed()
}

fn byte_change() -> impl Strategy<Value = ByteChange> {
    prop_oneof![
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| ByteChange::Flip(at, bit)),
        (any::<Index>(), prop_oneof![Just(0), Just(0xff), Just(b'"'), any::<u8>()])
            .prop_map(|(at, byte)| ByteChange::Set(at, byte)),
        (any::<Index>(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| ByteChange::Insert(at, bytes)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| ByteChange::Remove(a, b)),
        (any::<Index>(), any::<Index>(), 1..4u8).prop_map(|(a, b, times)| ByteChange::Repeat(a, b, times)),
        any::<Index>().prop_map(ByteChange::Cut),
        any::<Index>().prop_map(ByteChange::Append),
    ]
}

fn change_bytes(mut bytes: Vec<u8>, change: ByteChange, samples: &[Vec<u8>]) -> Vec<u8> {
    let place = |at: Index, length: usize| at.index(length + 1);
    let range = |a: Index, b: Index, length: usize| {
        let (a, b) = (place(a, length), place(b, length));
        a.min(b)..a.max(b)
    };
    let length = bytes.len();
    match change {
        ByteChange::Flip(at, bit) if length > 0 => bytes[at.index(length)] ^= 1 << bit,
        ByteChange::Set(at, byte) if length > 0 => bytes[at.index(length)] = byte,
        ByteChange::Flip(..) | ByteChange::Set(..) => {}
        ByteChange::Insert(at, new) => drop(bytes.splice(place(at, length)..place(at, length), new)),
        ByteChange::Remove(a, b) => drop(bytes.drain(range(a, b, length))),
        ByteChange::Repeat(a, b, times) => {
            let range = range(a, b, length);
            let part = bytes[range.clone()].repeat(times.into());
            bytes.splice(range.end..range.end, part);
        }
        ByteChange::Cut(at) => bytes.truncate(place(at, length)),
        ByteChange::Append(which) => bytes.extend_from_slice(&samples[which.index(samples.len())]),
    }
    bytes
}

fn json_change() -> impl Strategy<Value = JsonChange> {
    prop_oneof![
        4 => (any::<Index>(), value()).prop_map(|(at, value)| JsonChange::Replace(at, value)),
        1 => any::<Index>().prop_map(JsonChange::Remove),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, times)| JsonChange::Repeat(at, times)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| JsonChange::Copy(from, to)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, depth)| JsonChange::Nest(at, depth)),
    ]
}

/// Ids, escapes in names, times, and base64.
const TEXTS: [&str; 4] = [
    r"[0-9a-f]{64}",
    r#"(\\[abfnrtvxuU"\\]|[0-9a-fA-F]|[/.\x00"é\u{301}\u{2028}]){0,12}"#,
    r"-?[0-9]{4,6}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,12})?(Z|[+-][0-2][0-9]:[0-5][0-9])",
    r"([A-Za-z0-9+/]{4}){0,24}([A-Za-z0-9+/]{2}==)?",
];

fn shaped(shape: &str) -> impl Strategy<Value = String> + use<> {
    proptest::string::string_regex(shape).expect("a regular expression")
}

/// Values that parsers tend to forget.
fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(1.5)),
        Just(json!(1e300)),
        any::<u64>().prop_map(|number| json!(number)),
        (0..64u32).prop_map(|bits| json!(1u64 << bits)),
        (0..64u32).prop_map(|bits| json!((1u64 << bits) - 1)),
    ];
    let any_text = vec(any::<char>(), 0..24).prop_map(|letters| letters.into_iter().collect());
    let text = TEXTS.iter().fold(any_text.boxed(), |texts, shape| prop_oneof![1 => texts, 1 => shaped(shape)].boxed());
    let text = text.prop_map(Value::from);
    prop_oneof![
        1 => prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), Just(json!([])), Just(json!({}))],
        2 => number,
        3 => text,
    ]
}

/// Calls `change` with the value at a position in document order, counted down in `left`.
fn at(document: &mut Value, left: &mut usize, change: &mut dyn FnMut(&mut Value)) {
    if *left == 0 {
        change(document);
    }
    // after the change nothing more is to be found
    *left = left.wrapping_sub(1);
    match document {
        Value::Array(values) => values.iter_mut().for_each(|value| at(value, left, change)),
        Value::Object(fields) => fields.values_mut().for_each(|value| at(value, left, change)),
        _ => {}
    }
}

fn count(document: &Value) -> usize {
    1 + match document {
        Value::Array(values) => values.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

fn change_json(mut document: Value, change: JsonChange) -> Value {
    let values = count(&document);
    let mut change_at = |place: Index, change: &mut dyn FnMut(&mut Value)| {
        let mut left = place.index(values);
        at(&mut document, &mut left, change);
    };
    match change {
        JsonChange::Replace(place, new) => change_at(place, &mut |value| *value = new.clone()),
        JsonChange::Remove(place) => change_at(place, &mut remove),
        JsonChange::Repeat(place, times) => change_at(place, &mut |value| repeat(value, times.into())),
        JsonChange::Copy(from, to) => {
            let mut copy = Value::Null;
            change_at(from, &mut |value| copy = value.clone());
            change_at(to, &mut |value| *value = copy.clone());
        }
        JsonChange::Nest(place, depth) => change_at(place, &mut |value| nest(value, depth)),
    }
    document
}

/// Takes something out of a list or an object; anything else becomes nothing.
fn remove(value: &mut Value) {
    match value {
        Value::Array(values) => drop(values.pop()),
        Value::Object(fields) => {
            if let Some(name) = fields.keys().next().cloned() {
                fields.remove(&name);
            }
        }
        other => *other = Value::Null,
    }
}

fn repeat(value: &mut Value, times: usize) {
    match value {
        Value::Array(values) => {
            let more: Vec<_> = values.iter().take(3).cloned().cycle().take(times.min(values.len() * 255)).collect();
            values.extend(more);
        }
        Value::String(text) => *text = text.chars().take(100).collect::<String>().repeat(times),
        _ => {}
    }
}

fn nest(value: &mut Value, depth: u8) {
    for level in 0..depth {
        let inner = value.take();
        *value = if level % 2 == 0 { json!([inner]) } else { Value::Object(Map::from_iter([("a".into(), inner)])) };
    }
}
