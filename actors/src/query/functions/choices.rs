//! Functions that choose or take apart what they are given: `IIF`, `CHOOSE`, `ObjectToArray`,
//! `DOCUMENTID`.

use serde_json::{Map, Value};

use super::arguments::{Arguments, COMMA, Room, index, property};
use super::{Context, MANY, Row, row};

/// Where a document keeps the id that the store gave it.
const RESOURCE_ID: &str = "_rid";

pub(super) const ROWS: &[Row] = &[
    row("CHOOSE", (2, MANY), choose),
    row("DOCUMENTID", (1, 1), |a, _| a.object(0)?.get(RESOURCE_ID).cloned()),
    row("IIF", (3, 3), |a, _| a.value(if a.value(0) == Some(&Value::Bool(true)) { 1 } else { 2 }).cloned()),
    row("ObjectToArray", (1, 3), object_to_array),
];

/// The argument of this number, counted from one.
fn choose(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let number = arguments.integer(0)?;
    if number < 1 {
        return None;
    }
    arguments.value(index(number)).cloned()
}

/// One object for each property, with its name and its value. The query may name both.
fn object_to_array(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let properties = arguments.object(0)?;
    let (name_as, value_as) = (arguments.text_or(1, "k")?, arguments.text_or(2, "v")?);
    let (mut room, mut items) = (Room::new(), Vec::new());
    for (name, value) in properties {
        let name = Value::from(name.as_str());
        room.take(property(name_as, &name) + property(value_as, value) + COMMA)?;
        let mut item = Map::new();
        item.insert(name_as.into(), name);
        item.insert(value_as.into(), value.clone());
        items.push(Value::Object(item));
    }
    Some(Value::Array(items))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::query::functions::tests::{UNDEFINED, check};

    #[test]
    fn one_of_the_arguments_is_chosen() {
        check(&[
            ("CHOOSE", json!([0, "abc", 1, true, [1]]), json!(UNDEFINED)),
            ("CHOOSE", json!([1, "abc", 1, true, [1]]), json!("abc")),
            ("CHOOSE", json!([4, "abc", 1, true, [1]]), json!([1])),
            ("CHOOSE", json!([5, "abc", 1, true, [1]]), json!(UNDEFINED)),
            ("CHOOSE", json!([-1, "abc"]), json!(UNDEFINED)),
            ("CHOOSE", json!([1, UNDEFINED]), json!(UNDEFINED)),
            ("CHOOSE", json!(["1", "abc"]), json!(UNDEFINED)),
            ("IIF", json!([true, 123, 456]), json!(123)),
            ("IIF", json!([false, 123, 456]), json!(456)),
            ("IIF", json!([123, 123, 456]), json!(456)),
            ("IIF", json!([{"name": "Alice"}, 123, 456]), json!(456)),
            ("IIF", json!([UNDEFINED, 123, 456]), json!(456)),
            ("IIF", json!([true, UNDEFINED, 456]), json!(UNDEFINED)),
            ("DOCUMENTID", json!([{"id": "a", "_rid": "x=="}]), json!("x==")),
            ("DOCUMENTID", json!([{"id": "a"}]), json!(UNDEFINED)),
        ]);
    }

    #[test]
    fn an_object_becomes_an_array_of_its_properties_in_order() {
        let object = json!({"b": "67890", "a": {"x": 1}});
        check(&[
            ("ObjectToArray", json!([object]), json!([{"k": "b", "v": "67890"}, {"k": "a", "v": {"x": 1}}])),
            (
                "ObjectToArray",
                json!([object, "name"]),
                json!([{"name": "b", "v": "67890"}, {"name": "a", "v": {"x": 1}}]),
            ),
            (
                "ObjectToArray",
                json!([object, "key", "value"]),
                json!([{"key": "b", "value": "67890"}, {"key": "a", "value": {"x": 1}}]),
            ),
            ("ObjectToArray", json!([{}]), json!([])),
            ("ObjectToArray", json!([object, 1]), json!(UNDEFINED)),
            ("ObjectToArray", json!([[1]]), json!(UNDEFINED)),
        ]);
    }
}
