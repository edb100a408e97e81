//! What may change in a published schema of events: nothing but new fields that may be absent.
//!
//! Readers of two ages meet events of two ages. A reader that was written for the published schema
//! must be able to read what is written from now on, so nothing may become looser: no field may go,
//! become null or hold more than it did. A reader that is written today must be able to read what has
//! been in the log for years, so nothing may become stricter either.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Words about a schema; they bind nobody.
const ANNOTATIONS: [&str; 8] =
    ["$comment", "$id", "$schema", "default", "deprecated", "description", "examples", "title"];

/// Lower bounds: a higher one is stricter.
const LOWER: [&str; 5] = ["exclusiveMinimum", "minItems", "minLength", "minProperties", "minimum"];
/// Upper bounds: a lower one is stricter.
const UPPER: [&str; 5] = ["exclusiveMaximum", "maxItems", "maxLength", "maxProperties", "maximum"];

/// Each change from `published` to `now` that would break a reader, as `<where>: <what>`.
pub(crate) fn breaks(published: &Value, now: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", published, now, &mut found);
    found
}

/// The schema without the words that bind nobody.
pub(crate) fn structure(schema: &Value) -> Value {
    let Value::Object(keywords) = schema else { return schema.clone() };
    let kept = keywords.iter().filter(|(keyword, _)| !ANNOTATIONS.contains(&keyword.as_str()));
    let kept = kept.map(|(keyword, value)| {
        let value = match (keyword.as_str(), value) {
            ("properties", Value::Object(fields)) => {
                fields.iter().map(|(name, schema)| (name.clone(), structure(schema))).collect()
            }
            _ => structure(value),
        };
        (keyword.clone(), value)
    });
    kept.collect()
}

fn compare(at: &str, published: &Value, now: &Value, found: &mut Vec<String>) {
    let (Value::Object(old), Value::Object(new)) = (published, now) else {
        if published != now {
            found.push(format!("{}: was {published}, is {now}", place(at)));
        }
        return;
    };
    let mut say = |what: String| found.push(format!("{}: {what}", place(at)));
    let keywords: BTreeSet<_> = old.keys().chain(new.keys()).map(String::as_str).collect();
    for keyword in keywords.iter().filter(|keyword| !ANNOTATIONS.contains(*keyword)) {
        let (before, after) = (old.get(*keyword), new.get(*keyword));
        match *keyword {
            // Below.
            "properties" | "required" | "items" => {}
            "type" => types(before, after, &mut say),
            "enum" => values(before, after, &mut say),
            bound if LOWER.contains(&bound) || UPPER.contains(&bound) => {
                bounds(bound, before, after, &mut say);
            }
            _ if before == after => {}
            // A format, a pattern, a constant, or a keyword that nobody has thought about here.
            other => {
                say(format!("{other} was {}, is {}", shown(before), shown(after)));
            }
        }
    }
    fields(at, old, new, found);
    if let (Some(before), Some(after)) = (old.get("items"), new.get("items")) {
        compare(&format!("{at}/items"), before, after, found);
    } else if old.contains_key("items") != new.contains_key("items") {
        found.push(format!("{}: items were or are not described", place(at)));
    }
}

fn place(at: &str) -> &str {
    if at.is_empty() { "/" } else { at }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), Value::to_string)
}

/// One text, or a list of them.
fn texts(value: Option<&Value>) -> BTreeSet<&str> {
    match value {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(one)) => BTreeSet::from([one.as_str()]),
        _ => BTreeSet::new(),
    }
}

fn types(before: Option<&Value>, after: Option<&Value>, say: &mut impl FnMut(String)) {
    let (mut old, mut new) = (texts(before), texts(after));
    match (old.remove("null"), new.remove("null")) {
        (false, true) => say("may be null now".to_owned()),
        (true, false) => say("may not be null any more, and was in old events".to_owned()),
        _ => {}
    }
    if old != new {
        say(format!("type was {}, is {}", shown(before), shown(after)));
    }
}

fn values(before: Option<&Value>, after: Option<&Value>, say: &mut impl FnMut(String)) {
    let list = |value: Option<&Value>| {
        value.and_then(Value::as_array).map(|all| all.iter().map(Value::to_string).collect())
    };
    let (old, new): (Option<BTreeSet<_>>, Option<BTreeSet<_>>) = (list(before), list(after));
    match (old, new) {
        (Some(old), Some(new)) => {
            for value in new.difference(&old) {
                say(format!("enum has {value} now, which old readers don't know"));
            }
            for value in old.difference(&new) {
                say(format!("enum has no {value} any more, and old events have"));
            }
        }
        (None, None) => {}
        _ => say(format!("enum was {}, is {}", shown(before), shown(after))),
    }
}

fn bounds(
    bound: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    say: &mut impl FnMut(String),
) {
    let number = |value: Option<&Value>| value.and_then(Value::as_f64);
    let lower = LOWER.contains(&bound);
    let unbounded = if lower { f64::NEG_INFINITY } else { f64::INFINITY };
    let (old, new) = (number(before).unwrap_or(unbounded), number(after).unwrap_or(unbounded));
    let stricter = if lower { new > old } else { new < old };
    if stricter {
        say(format!(
            "{bound} was {}, is {}: tightened, old events break it",
            shown(before),
            shown(after)
        ));
    } else if before != after {
        say(format!(
            "{bound} was {}, is {}: loosened, old readers break on it",
            shown(before),
            shown(after)
        ));
    }
}

fn fields(at: &str, old: &Map<String, Value>, new: &Map<String, Value>, found: &mut Vec<String>) {
    let none = Map::new();
    let properties = |schema: &Map<String, Value>| {
        schema.get("properties").and_then(Value::as_object).unwrap_or(&none).clone()
    };
    let (before, after) = (properties(old), properties(new));
    let (was, is) = (texts(old.get("required")), texts(new.get("required")));
    for (name, published) in &before {
        let place = format!("{at}/{name}");
        let Some(now) = after.get(name) else {
            found.push(format!("{place}: is gone"));
            continue;
        };
        if was.contains(name.as_str()) && !is.contains(name.as_str()) {
            found.push(format!("{place}: may be absent now"));
        }
        compare(&place, published, now, found);
    }
    for name in is.difference(&was) {
        found.push(format!("{at}/{name}: is required now, and old events may lack it"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn published() -> Value {
        json!({
            "type": "object",
            "required": ["id", "kind"],
            "additionalProperties": true,
            "properties": {
                "id": { "type": "string", "format": "uuid", "description": "Words." },
                "kind": { "type": "string", "enum": ["a", "b"] },
                "code": { "type": ["string", "null"], "minLength": 1, "maxLength": 255 },
                "count": { "type": "integer", "minimum": 0 },
                "time": { "type": "string", "pattern": "Z$" },
                "list": { "type": "array", "items": { "type": "string" } },
                "nested": { "type": "object", "properties": { "deep": { "type": "string" } } },
            },
        })
    }

    /// What `change` at `pointer` is found to break; JSON null there removes.
    fn broken(pointer: &str, change: Value) -> Vec<String> {
        let mut now = published();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = now.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if change.is_null() {
            parent.remove(name).unwrap();
        } else {
            parent.insert(name.to_owned(), change);
        }
        breaks(&published(), &now)
    }

    #[test]
    fn fields_may_be_added_and_words_changed() {
        assert_eq!(broken("/properties/new", json!({ "type": "string" })), [""; 0]);
        let deep = "/properties/nested/properties/new";
        assert_eq!(broken(deep, json!({ "type": ["object", "null"] })), [""; 0]);
        assert_eq!(broken("/properties/id/description", json!("Other words.")), [""; 0]);
        assert_eq!(broken("/title", json!("A title.")), [""; 0]);
        let same = structure(&published());
        assert_eq!(same.pointer("/properties/id/description"), None);
        assert_eq!(same.pointer("/properties/id/format"), Some(&json!("uuid")));
    }

    #[test]
    fn each_kind_of_break_is_found_where_it_is() {
        let code = "/properties/code";
        for (pointer, change, expected) in [
            ("/properties/code", Value::Null, "/code: is gone"),
            ("/properties/nested/properties/deep", Value::Null, "/nested/deep: is gone"),
            ("/properties/id/type", json!("integer"), r#"/id: type was "string", is "integer""#),
            ("/properties/id/type", json!(["string", "null"]), "/id: may be null now"),
            (
                &format!("{code}/type"),
                json!("string"),
                "/code: may not be null any more, and was in old events",
            ),
            (
                "/properties/id/type",
                json!(["string", "integer"]),
                r#"/id: type was "string", is ["string","integer"]"#,
            ),
            (
                "/properties/kind/enum",
                json!(["a", "b", "c"]),
                r#"/kind: enum has "c" now, which old readers don't know"#,
            ),
            (
                "/properties/kind/enum",
                json!(["a"]),
                r#"/kind: enum has no "b" any more, and old events have"#,
            ),
            ("/properties/kind/enum", Value::Null, r#"/kind: enum was ["a","b"], is absent"#),
            ("/required", json!(["id"]), "/kind: may be absent now"),
            (
                "/required",
                json!(["id", "kind", "code"]),
                "/code: is required now, and old events may lack it",
            ),
            (
                &format!("{code}/maxLength"),
                json!(256),
                "/code: maxLength was 255, is 256: loosened, old readers break on it",
            ),
            (
                &format!("{code}/maxLength"),
                Value::Null,
                "/code: maxLength was 255, is absent: loosened, old readers break on it",
            ),
            (
                &format!("{code}/maxLength"),
                json!(254),
                "/code: maxLength was 255, is 254: tightened, old events break it",
            ),
            (
                "/properties/count/minimum",
                json!(1),
                "/count: minimum was 0, is 1: tightened, old events break it",
            ),
            (
                "/properties/count/minimum",
                json!(-1),
                "/count: minimum was 0, is -1: loosened, old readers break on it",
            ),
            (
                "/properties/count/maximum",
                json!(9),
                "/count: maximum was absent, is 9: tightened, old events break it",
            ),
            ("/properties/id/format", Value::Null, r#"/id: format was "uuid", is absent"#),
            ("/properties/time/pattern", json!("z$"), r#"/time: pattern was "Z$", is "z$""#),
            ("/properties/id/const", json!("x"), r#"/id: const was absent, is "x""#),
            ("/additionalProperties", json!(false), "/: additionalProperties was true, is false"),
            (
                "/properties/list/items/type",
                json!("integer"),
                r#"/list/items: type was "string", is "integer""#,
            ),
            ("/properties/list/items", Value::Null, "/list: items were or are not described"),
            ("/properties/id", json!(true), "/id: was"),
        ] {
            let found = broken(pointer, change.clone());
            assert_eq!(found.len(), 1, "{pointer} {change}: {found:?}");
            assert!(found[0].starts_with(expected), "{pointer} {change}: {found:?}");
        }
    }

    /// Two at once: the field is new and old events lack it.
    #[test]
    fn a_new_field_must_not_be_required() {
        let mut now = published();
        now["properties"]["new"] = json!({ "type": "string" });
        now["required"] = json!(["id", "kind", "new"]);
        let found = breaks(&published(), &now);
        assert_eq!(found, ["/new: is required now, and old events may lack it"]);
    }
}
