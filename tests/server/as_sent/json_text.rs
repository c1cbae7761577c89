//! JSON as clients may spell it.

use proptest::prelude::*;

/// A JSON string with its quotes: escapes of every kind, characters of every kind. Now and then one that
/// no program could read back.
pub fn spelled() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => "[ !#-\\[\\]-~]{1,8}",
        4 => any::<char>().prop_filter("escaped below", |c| !c.is_control() && !"\"\\".contains(*c))
            .prop_map(String::from),
        4 => any::<char>().prop_map(escaped),
        2 => prop_oneof![
            Just("\\n"), Just("\\/"), Just("\\\""), Just("\\\\"), Just("\\t"), Just("\\b"), Just("\\f"),
            Just("\\uD83D\\uDE00"), Just("\\u00Ff")
        ].prop_map(str::to_owned),
        1 => prop_oneof![100 => Just(""), 1 => Just("\\ud83d"), 1 => Just("\\udc00"), 1 => Just("\\u0000")]
            .prop_map(str::to_owned),
    ];
    let pieces = prop::collection::vec(piece, 0..12);
    pieces.prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// A character as one escape, or two.
fn escaped(character: char) -> String {
    let mut units = [0; 2];
    let units = character.encode_utf16(&mut units).iter();
    let units: Vec<String> = units.map(|unit| format!("\\u{unit:04x}")).collect();
    units.concat()
}

/// A number as JSON's grammar allows it, also beyond what a double holds.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        2 => any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        1 => any::<u64>().prop_map(|n| n.to_string()),
        1 => "-?[1-9]\\.[0-9]{1,18}[eE](30[0-9]|-3[0-9]{2})",
        1 => "[1-9][0-9]{305,311}",
    ]
}

fn blank() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just("\r\n\t")].prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        1 => prop_oneof![Just("null"), Just("true"), Just("false")].prop_map(str::to_owned),
        3 => number(),
        3 => spelled(),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        let items = prop::collection::vec((blank(), inner.clone(), blank()), 0..4);
        let array = items.prop_map(|items| {
            let items: Vec<String> = items
                .into_iter()
                .map(|(a, item, b)| a + &item + &b)
                .collect();
            format!("[{}]", items.join(","))
        });
        prop_oneof![array, object(inner)]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    // Few short keys among others, so that some are repeated.
    let key = prop_oneof![
        Just("\"a\"".to_owned()),
        Just("\"b\"".to_owned()),
        spelled()
    ];
    let members = prop::collection::vec((blank(), key, blank(), value, blank()), 0..5);
    members.prop_map(|members| {
        let members: Vec<String> = members
            .into_iter()
            .map(|(a, key, b, value, c)| format!("{a}{key}{b}:{a}{value}{c}"))
            .collect();
        format!("{{{}}}", members.join(","))
    })
}

/// A JSON object.
pub fn json_object() -> impl Strategy<Value = String> {
    object(value())
}
