//! Small readings of JSON objects.
//!
//! An absent field and one of another shape are the same here: objects come from storage and from other people's
//! servers, and no reading may panic.

use serde_json::Value;

/// The text at a path of fields; none where there is none, or it is empty.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path)?.as_str().filter(|text| !text.is_empty())
}

/// The value at a path of fields.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, field| value.get(field))
}

/// The value at a path of fields, to be changed.
pub(crate) fn at_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, field| value.get_mut(field))
}

/// The elements of a list at a path of fields; none where it is no list.
pub(crate) fn each<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> + use<'a> {
    at(value, path).and_then(Value::as_array).into_iter().flatten()
}

/// The elements of a list at a path of fields, to be changed.
pub(crate) fn each_mut<'a>(value: &'a mut Value, path: &[&str]) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    at_mut(value, path).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Removes a field below a path of fields.
pub(crate) fn remove(value: &mut Value, path: &[&str], field: &str) -> Option<Value> {
    at_mut(value, path)?.as_object_mut()?.remove(field)
}

/// Removes a field below a path of fields, and the map at that path with its last field: servers do not tell an empty
/// map from an absent one.
pub(crate) fn remove_entry(value: &mut Value, path: &[&str], field: &str) {
    remove(value, path, field);
    if let Some((last, above)) = path.split_last()
        && at(value, path).and_then(Value::as_object).is_some_and(serde_json::Map::is_empty)
    {
        remove(value, above, last);
    }
}

/// Sets the text of a field below a path of fields that exists.
pub(crate) fn set_text(value: &mut Value, path: &[&str], field: &str, text: &str) {
    if let Some(map) = at_mut(value, path).and_then(Value::as_object_mut) {
        map.insert(field.to_owned(), text.into());
    }
}
