//! Bodies that are read, and those that are rejected with their reasons.

use proptest::collection::vec;
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof};

use super::*;
use crate::problem::Kind;

fn headers(content_type: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())])
}

fn body(price: &str) -> String {
    let id = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";
    format!(r#"{{"productId":"{id}","vendorId":"{id}","name":"red mug","price":{price},"quantity":1}}"#)
}

fn price(text: &str) -> Result<String, String> {
    match add_item(&headers("application/json; charset=utf-8"), body(text).as_bytes()) {
        Ok(Command::AddItem { price, .. }) => Ok(price.to_string()),
        Ok(other) => panic!("{other:?}"),
        Err(problem) => Err(format!("{problem:?}")),
    }
}

#[test]
fn a_price_is_read_exactly_from_a_string_or_a_number() {
    for (text, exact) in [("\"3200\"", "3200"), ("0.1", "0.1"), ("2.50", "2.5"), ("1e2", "100"), ("0.0001", "0.0001")] {
        assert_eq!(price(text).unwrap(), exact);
    }
    assert_eq!(price("999999999.9999").unwrap(), "999999999.9999");
    // So many digits that they would be rounded to 1.
    let nines = format!("0.{}", "9".repeat(40));
    let rounded = [nines.clone(), format!("{nines}e0"), format!("\"{nines}E+0\"")];
    let bad = [
        "0.00001",
        "\"-1\"",
        "-0.01",
        "\"\"",
        "\"1,5\"",
        "true",
        "null",
        "1000000000",
        "\"NaN\"",
        "1e400",
        "1e-9",
        "\"1_0\"",
    ];
    for bad in bad.into_iter().chain(rounded.iter().map(String::as_str)) {
        assert!(price(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_name_is_normalised_before_it_is_measured() {
    let name = |text: &str| match add_item(&headers("application/json"), body("1").replace("red mug", text).as_bytes())
    {
        Ok(Command::AddItem { name, .. }) => Ok(name.as_str().to_owned()),
        Ok(other) => panic!("{other:?}"),
        Err(problem) => Err(format!("{problem:?}")),
    };
    assert_eq!(name("cafe\u{301}").unwrap(), "café");
    assert_eq!(name(&"e\u{301}".repeat(200)).unwrap(), "é".repeat(200));
    // One character becomes two.
    assert!(name(&"\u{958}".repeat(101)).unwrap_err().contains("202 characters"));
    assert!(name(r"x\u0000").unwrap_err().contains("control character U+0000"));
    assert!(name("\u{3164}").unwrap_err().contains("only invisible characters"));
}

#[test]
fn a_batch_names_its_invalid_command() {
    let id = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";
    let read = |text: &str| batch(&headers("application/json"), text.as_bytes());
    let add = body("0.10");
    let all = format!(
        r#"{{"atomic":true,"commands":[{{"add":{add}}},{{"adjust":{{"productId":"{id}","adjustBy":-1}}}},
           {{"remove":{{"productId":"{id}"}}}},{{"checkout":{{}}}}]}}"#
    );
    let read_all = read(&all).unwrap();
    assert!(read_all.atomic && read_all.commands.len() == 4);
    assert!(!read(r#"{"commands":[{"checkout":{}}]}"#).unwrap().atomic);
    let rejected = |text: &str| format!("{:?}", read(text).unwrap_err());
    assert!(rejected(&all.replace("adjustBy\":-1", "adjustBy\":0")).contains("commands[1].adjust.adjustBy: 0"));
    assert!(rejected(r#"{"commands":[]}"#).contains("1 to 100"));
    assert!(rejected(r#"{"commands":[{"pay":{}}]}"#).contains("unknown variant"));
    assert!(rejected(r#"{"commands":[{"checkout":{"x":1}}]}"#).contains("unknown field"));
    assert!(rejected(&format!(r#"{{"commands":[{{"remove":["{id}"]}}]}}"#)).contains("expected an object"));
    assert!(rejected(&all.replace("\"atomic\"", "\"atomical\"")).contains("unknown field"));
}

/// The kind and the detail of the problem of a batch.
fn rejected_batch(text: &str) -> (Kind, String) {
    let problem = batch(&headers("application/json"), text.as_bytes()).expect_err(text);
    let detail = serde_json::to_value(&problem).unwrap()["detail"].as_str().unwrap().to_owned();
    (problem.kind(), detail)
}

#[test]
fn an_invalid_field_is_named_by_its_path() {
    let id = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";
    let add = body("0.10");
    let batched = |commands: &str| format!(r#"{{"commands":[{{"checkout":{{}}}},{commands}]}}"#);
    let one_of = "one of add, remove, adjust and checkout";
    for (text, start, reason) in [
        ("5".to_owned(), "invalid type: integer `5`", "expected an object"),
        ("null".to_owned(), "invalid type: null", "expected an object"),
        ("{}".to_owned(), "commands: missing field", "`commands`"),
        (r#"{"commands":[],"commands":[]}"#.to_owned(), "commands: duplicate field", "`commands`"),
        (r#"{"commands":{}}"#.to_owned(), "commands: ", "expected a sequence"),
        (r#"{"atomic":1,"commands":[]}"#.to_owned(), "atomic: ", "expected a boolean"),
        (r#"{"commands":[],"x":1}"#.to_owned(), "x: unknown field", "`x`"),
        (r#"{"commands":[]}"#.to_owned(), "commands: ", "1 to 100"),
        (batched("5"), "commands[1]: ", one_of),
        (batched("null"), "commands[1]: ", one_of),
        (batched("[]"), "commands[1]: ", one_of),
        (batched("\"checkout\""), "commands[1]: ", one_of),
        (batched("{}"), "commands[1]: ", one_of),
        (batched(r#"{"pay":{}}"#), "commands[1].pay: ", "unknown variant `pay`"),
        (batched(r#"{"checkout":{},"checkout":{}}"#), "commands[1]: ", one_of),
        (batched(r#"{"checkout":{},"pay":{}}"#), "commands[1]: ", one_of),
        (batched(r#"{"checkout":null}"#), "commands[1].checkout: ", "expected an object"),
        (batched(r#"{"checkout":{"x":1}}"#), "commands[1].checkout.x: ", "unknown field `x`"),
        (batched(r#"{"adjust":{}}"#), "commands[1].adjust.productId: ", "missing field"),
        (batched(&format!(r#"{{"adjust":{{"productId":"{id}"}}}}"#)), "commands[1].adjust.adjustBy: ", "missing field"),
        (
            batched(&format!(r#"{{"adjust":{{"productId":"{id}","adjustBy":1e309}}}}"#)),
            "commands[1].adjust.adjustBy: ",
            "must be a whole number from -2147483648 to 2147483647, not 1e309",
        ),
        (
            batched(&format!(r#"{{"adjust":{{"adjustBy":1,"adjustBy":1,"productId":"{id}"}}}}"#)),
            "commands[1].adjust.adjustBy: ",
            "duplicate field",
        ),
        (batched(&format!(r#"{{"add":{}}}"#, add.replace(":1}", ":1e400}"))), "commands[1].add.quantity: ", "1e400"),
        (batched(&format!(r#"{{"add":{}}}"#, add.replace("0.10", "[]"))), "commands[1].add.price: ", "decimal"),
        (
            batched(&format!(r#"{{"add":{}}}"#, add.replace("red mug", "\\ud800"))),
            "commands[1].add.name: ",
            "hex escape",
        ),
        (batched(&format!(r#"{{"add":{}}}"#, add.replace("red mug", ""))), "commands[1].add.name: ", "empty"),
    ] {
        let (kind, detail) = rejected_batch(&text);
        assert_eq!(kind, Kind::InvalidField, "{text}: {detail}");
        assert!(detail.starts_with(start) && detail.contains(reason), "{text}: {detail}");
    }
    let (kind, detail) = rejected_batch(&batched(r#"{"remove":{"productId":"mug"}}"#));
    assert!(kind == Kind::InvalidId && detail.starts_with("commands[1].remove.productId 'mug'"), "{detail}");
}

#[test]
fn a_quantity_is_a_whole_number_read_exactly() {
    let adjusted = |text: &str| {
        let body = format!(r#"{{"adjustBy":{text}}}"#);
        adjust(ProductId::from(Uuid::nil()), &headers("application/json"), body.as_bytes())
    };
    for (text, number) in [("2", 2), ("-2", -2), ("2.0", 2), ("20e-1", 2), ("2E3", 2_000), ("-2147483648", i32::MIN)] {
        let command = adjusted(text).unwrap();
        assert!(matches!(command, Command::AdjustQuantity { adjust_by, .. } if adjust_by.get() == number), "{text}");
    }
    for text in [
        "0.99999999999999999",
        "999999.99999999999",
        "1.5",
        "2147483648",
        "-2147483649",
        "9223372036854775808",
        "1e400",
        "\"2\"",
        "true",
        "null",
        "[2]",
        "{\"$serde_json::private::RawValue\":\"2\"}",
    ] {
        let problem = adjusted(text).unwrap_err();
        assert_eq!(problem.kind(), Kind::InvalidField, "{text}");
        assert!(format!("{problem:?}").contains("adjustBy: must be a whole number"), "{text}: {problem:?}");
    }
}

#[test]
fn invalid_json_is_malformed_wherever_the_reader_stopped() {
    let checkout = r#"{"commands":[{"checkout":{}}]}"#;
    let mut bad: Vec<_> = (0..checkout.len()).map(|len| checkout[..len].to_owned()).collect();
    bad.extend([format!("{checkout}{checkout}"), format!("{checkout}]"), format!("\u{feff}{checkout}")]);
    // Each of these has an invalid field before the place where it stops being JSON.
    bad.extend(["{\"x\":1", "5 5", "[1,]", "{\"commands\":[5", "{\"commands\":[],\"commands\":01}"].map(str::to_owned));
    for text in bad {
        assert_eq!(rejected_batch(&text).0, Kind::MalformedBody, "{text}");
    }
    for bytes in [&b"{\"x\":\"\xff\"}"[..], b"\xff", b"{\"name\":\"\xed\xa0\x80\"}"] {
        let problem = batch(&headers("application/json"), bytes).unwrap_err();
        assert_eq!(problem.kind(), Kind::MalformedBody, "{bytes:?}");
    }
}

#[test]
fn rejects_an_encoded_body() {
    let read = |encodings: &[&str]| {
        let mut headers = headers("application/json");
        for value in encodings {
            headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
        }
        batch(&headers, br#"{"commands":[{"checkout":{}}]}"#).map(|_| ()).map_err(|problem| problem.kind())
    };
    for plain in [&[][..], &["identity"], &["Identity, identity"], &[""], &["identity", "identity"]] {
        assert_eq!(read(plain), Ok(()), "{plain:?}");
    }
    for encoded in [&["gzip"][..], &["br"], &["identity, gzip"], &["identity", "deflate"], &["x-unknown"], &["*"]] {
        assert_eq!(read(encoded), Err(Kind::UnsupportedContentEncoding), "{encoded:?}");
    }
}

#[test]
fn rejects_an_invalid_body_with_the_reason() {
    let rejected = |content_type: &str, body: &str| {
        format!("{:?}", add_item(&headers(content_type), body.as_bytes()).unwrap_err())
    };
    assert!(rejected("application/json", "{").contains("MalformedBody"));
    assert!(rejected("application/json", "{}").contains("missing field"));
    assert!(rejected("application/json", "[]").contains("expected an object"));
    assert!(rejected("text/plain", &body("1")).contains("UnsupportedMediaType"));
    assert!(
        rejected("application/json", &body("1").replace("\"quantity\":1", "\"quantity\":1,\"x\":2"))
            .contains("unknown field")
    );
    assert!(
        rejected("application/json", &body("1").replace("\"quantity\":1", "\"quantity\":9999999999"))
            .contains("quantity")
    );
    assert!(rejected("application/json", &body("1").replace("red mug", &"x".repeat(201))).contains("201 characters"));
    assert!(rejected("application/json", &body("1").replace("6ba7", "zzzz")).contains("InvalidId"));
    assert!(adjust(ProductId::from(Uuid::nil()), &headers("application/json"), br#"{"adjustBy":0}"#).is_err());
}

/// JSON of any shape, with the field names of the bodies, and with numbers and strings that no field accepts.
fn any_json() -> impl Strategy<Value = String> {
    let names =
        "productId|vendorId|name|price|quantity|adjustBy|commands|atomic|add|remove|adjust|checkout|x|\\\\ud800|";
    let number = r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,5})?";
    let string = r#""([a-z é\u{2028}]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}){0,6}""#;
    let leaf = prop_oneof!["null|true|false", number, string];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        let member = (names, inner.clone()).prop_map(|(name, value)| format!("\"{name}\" : {value}"));
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(", "))),
            vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(",\n"))),
        ]
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(5_000))]

    #[test]
    fn valid_json_is_never_reported_as_malformed(json in any_json(), end in 0_usize..200) {
        let json_headers = headers("application/json");
        let kinds = |body: &str| {
            let added = add_item(&json_headers, body.as_bytes()).err();
            let adjusted = adjust(ProductId::from(Uuid::nil()), &json_headers, body.as_bytes()).err();
            let batched = batch(&json_headers, body.as_bytes()).err();
            [added, adjusted, batched].map(|problem| problem.map(|problem| problem.kind()))
        };
        let bodies = [
            json.clone(),
            format!(r#"{{"commands":{json}}}"#),
            format!(r#"{{"commands":[{{"checkout":{{}}}},{json}]}}"#),
            format!(r#"{{"commands":[{{"add":{json}}}]}}"#),
            format!(r#"{{"adjustBy":{json}}}"#),
            body(&json),
        ];
        for whole in bodies {
            let kinds_of_whole = kinds(&whole);
            prop_assert!(!kinds_of_whole.contains(&Some(Kind::MalformedBody)), "{whole}: {kinds_of_whole:?}");
            // Truncated JSON is malformed, whatever else is wrong with it. Parts of a number may be numbers.
            if whole.starts_with(['{', '[', '"']) && let Some(cut) = whole.get(..end.min(whole.len() - 1)) {
                prop_assert_eq!(kinds(cut), [Some(Kind::MalformedBody); 3], "{}", cut);
            }
        }
    }

    #[test]
    fn arbitrary_bodies_are_parsed_or_rejected(text in r#"[\[\]{}":,.0-9eE+\-u\\ a-f]{0,60}"#, bytes: Vec<u8>) {
        let json = headers("application/json");
        if let Ok(exact) = price(&text) {
            proptest::prop_assert!(exact.parse::<Price>().is_ok(), "{text} is not a price");
        }
        for body in [text.as_bytes(), &bytes, body(&text).as_bytes()] {
            drop((add_item(&json, body), batch(&json, body), id::<ProductId>("productId", &text)));
            drop(adjust(ProductId::from(Uuid::nil()), &json, body));
        }
    }
}
