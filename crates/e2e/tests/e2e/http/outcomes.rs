//! The outcomes of the rules over HTTP.

use chrono::{DateTime, Utc};
use e2e::harness::{Installation, Process, Service};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::{Api, Cart, Headers, PATIENT, item};

async fn start(installation: &Installation) -> anyhow::Result<(Vec<Process>, Api)> {
    installation.setup().await?;
    let ingest = [&PATIENT[..], &["--allow-client-time"]].concat();
    let processes =
        installation.start_all(&[(Service::CartProcessor, "0", &[]), (Service::Ingest, "0", &ingest)]).await?;
    let api = Api::new(&processes[1]);
    Ok((processes, api))
}

pub(crate) async fn every_rule_is_reported_and_a_checkout_begins_another_session() -> anyhow::Result<()> {
    let installation = Installation::new("outcomes")?;
    let (processes, api) = start(&installation).await?;
    a_session_and_the_next(&api.cart()).await?;
    rejections_change_nothing(&api.cart()).await?;
    a_full_cart(&api.cart()).await?;
    quantities(&api.cart()).await?;
    drop(processes);
    installation.remove().await
}

/// The answer to each command, from the empty cart to the next session.
async fn a_session_and_the_next(cart: &Cart) -> anyhow::Result<()> {
    let empty = cart.get().await?;
    let session = empty["sessionId"].clone();
    assert!(session.as_str().is_some_and(|id| Uuid::parse_str(id).is_ok()), "{empty:#}");
    assert_eq!(
        empty,
        json!({"cartId": cart.id, "sessionId": session, "version": 0, "items": [], "total": "0"}),
        "an unknown cart is an empty one"
    );
    let mut ids = Vec::new();
    for version in [1, 2] {
        let body = item(version, 2);
        let reply = cart.send(Method::POST, "", &[], Some(body.to_string())).await?.done();
        ids.push(reply["commandId"].clone());
        let expected = json!({"commandId": reply["commandId"], "cartId": cart.id, "sessionId": session,
                              "version": version, "item": body});
        assert_eq!(reply, expected);
    }
    let adjusted = cart.adjust(1, -1).await?.done();
    assert_eq!((&adjusted["version"], &adjusted["item"]), (&json!(3), &item(1, 1)));
    let adjusted = cart.adjust(1, 4).await?.done();
    assert_eq!((&adjusted["version"], &adjusted["item"]), (&json!(4), &item(1, 5)));
    let removed = cart.remove(2).await?.done();
    assert_eq!((&removed["version"], &removed["item"]), (&json!(5), &item(2, 2)), "the removed item is returned");
    cart.add(2, 1).await?.done();

    let sent_at = Utc::now();
    let bought = cart.checkout().await?.done();
    let purchased_at: DateTime<Utc> = bought["purchasedAt"].as_str().unwrap_or_default().parse()?;
    // The command's time is returned in microseconds, truncated.
    let since = purchased_at.timestamp_micros() - sent_at.timestamp_micros();
    assert!((0..=60_000_000).contains(&since), "{bought:#}, sent at {sent_at}");
    assert!(bought["purchasedAt"].as_str().is_some_and(|time| time.ends_with('Z')), "{bought:#}");
    let expected = json!({"commandId": bought["commandId"], "cartId": cart.id, "sessionId": session, "version": 8,
                          "items": [item(1, 5), item(2, 1)], "total": "15", "purchasedAt": bought["purchasedAt"]});
    assert_eq!(bought, expected);
    ids.extend([adjusted, removed, bought].map(|mut reply| reply["commandId"].take()));
    ids.sort_unstable_by_key(Value::to_string);
    ids.dedup();
    assert_eq!(ids.len(), 5, "each command has an id of its own: {ids:?}");

    // A purchased product can be added again in the next session.
    let next = cart.get().await?;
    assert_ne!(next["sessionId"], session);
    assert_eq!((&next["version"], &next["items"], &next["total"]), (&json!(8), &json!([]), &json!("0")));
    let added = cart.add(1, 1).await?.done();
    assert_eq!((&added["sessionId"], &added["version"]), (&next["sessionId"], &json!(9)));

    // A purchase in the past, as an import has it.
    let time: Headers<'_> = &[("command-time", "2010-12-01T09:26:07.25+01:00")];
    let bought = cart.send(Method::POST, "/checkout", time, None).await?.done();
    assert_eq!(bought["sessionId"], next["sessionId"]);
    assert_eq!(bought["purchasedAt"], "2010-12-01T08:26:07.250Z");
    // A leap second counts for the month that it ends.
    cart.add(1, 1).await?.done();
    let time: Headers<'_> = &[("command-time", "2016-12-31T23:59:60Z")];
    let bought = cart.send(Method::POST, "/checkout", time, None).await?.done();
    assert_eq!(bought["purchasedAt"], "2016-12-31T23:59:59.999999Z");
    Ok(())
}

async fn rejections_change_nothing(cart: &Cart) -> anyhow::Result<()> {
    cart.checkout().await?.rejected(409, "empty-cart-checkout", "add an item first");
    cart.remove(1).await?.rejected(404, "item-not-in-cart", "only items in the cart");
    cart.adjust(1, 1).await?.rejected(404, "item-not-in-cart", "only items in the cart");
    assert_eq!(cart.get().await?["version"], 0);
    cart.add(1, 2).await?.done();
    cart.add(1, 2).await?.rejected(409, "item-already-in-cart", "adjust its quantity instead");
    // A product is one line, for any vendor.
    let mut of_another_vendor = item(1, 2);
    of_another_vendor["vendorId"] = json!(Uuid::from_u128(2));
    let answer = cart.send(Method::POST, "", &[], Some(of_another_vendor.to_string())).await?;
    answer.rejected(409, "item-already-in-cart", "adjust its quantity instead");
    let answer = cart.send(Method::PUT, "", &[], Some(item(1, 2).to_string())).await?;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST")), "{answer:?}");
    for (by, would_be) in [(-2, "would be 0;"), (-3, "would be -1;"), (-2_147_483_648, "would be -2147483646;")] {
        cart.adjust(1, by).await?.rejected(422, "negative-quantity", would_be);
    }
    cart.add(2, 1).await?.done();
    cart.add(3, 1).await?.done();
    let shown = cart.get().await?;
    assert_eq!((&shown["version"], &shown["items"]), (&json!(3), &json!([item(1, 2), item(2, 1), item(3, 1)])));
    cart.remove(1).await?.done();
    cart.add(4, 1).await?.done();
    cart.checkout().await?.done();
    cart.checkout().await?.rejected(409, "empty-cart-checkout", "add an item first");
    Ok(())
}

/// A cart takes 1,000 lines: 999, and the last one.
async fn a_full_cart(cart: &Cart) -> anyhow::Result<()> {
    let adds: Vec<Value> = (1..=999).map(|number| json!({"add": item(number, 1)})).collect();
    for commands in adds.chunks(100) {
        let body = json!({"atomic": true, "commands": commands});
        cart.send(Method::POST, "/commands", &[], Some(body.to_string())).await?.done();
    }
    cart.add(1_000, 1).await?.done();
    cart.add(1_001, 1).await?.rejected(409, "cart-full", "the cart has 1000 lines");
    // A product in the cart is rejected as such, also if the cart is full.
    cart.add(3, 1).await?.rejected(409, "item-already-in-cart", "adjust its quantity instead");
    // After a removal there is room for another product.
    cart.remove(1).await?.done();
    cart.add(1_001, 1).await?.done();
    let bought = cart.checkout().await?.done();
    assert_eq!((bought["items"].as_array().map(Vec::len), &bought["version"]), (Some(1_000), &json!(2_002)));
    Ok(())
}

async fn quantities(cart: &Cart) -> anyhow::Result<()> {
    for (quantity, kind, would_be) in [
        (0, "negative-quantity", "would be 0;"),
        (-1, "negative-quantity", "would be -1;"),
        (-2_147_483_648, "negative-quantity", "would be -2147483648;"),
        (1_000_001, "quantity-too-large", "would be 1000001; at most 1000000"),
        (2_147_483_647, "quantity-too-large", "would be 2147483647; at most 1000000"),
    ] {
        cart.add(1, quantity).await?.rejected(422, kind, would_be);
    }
    assert_eq!(cart.add(1, 999_999).await?.done()["item"]["quantity"], 999_999);
    cart.adjust(1, 2).await?.rejected(422, "quantity-too-large", "would be 1000001; at most 1000000");
    // Their sum is beyond 32 bits.
    cart.adjust(1, 2_147_483_647).await?.rejected(422, "quantity-too-large", "would be 2148483646;");
    assert_eq!(cart.adjust(1, 1).await?.done()["item"]["quantity"], 1_000_000);
    assert_eq!(cart.adjust(1, -999_999).await?.done()["item"]["quantity"], 1);
    assert_eq!(cart.get().await?["version"], 3);
    Ok(())
}

/// An item's body with these parts as they are written.
fn written(name: &str, price: &str) -> String {
    let id = Uuid::from_u128(1);
    format!(r#"{{"productId":"{id}","vendorId":"{id}","name":{name},"price":{price},"quantity":3}}"#)
}

pub(crate) async fn prices_and_names_are_returned_as_they_were_sent() -> anyhow::Result<()> {
    let installation = Installation::new("exact")?;
    let (processes, api) = start(&installation).await?;
    for (price, exact, of_three) in [
        ("0.1", "0.1", "0.3"),
        ("\"0.1\"", "0.1", "0.3"),
        ("3200", "3200", "9600"),
        ("\"3200\"", "3200", "9600"),
        ("12.3400", "12.34", "37.02"),
        ("\"12.3400\"", "12.34", "37.02"),
        // Trailing zeros are not decimal places.
        ("1.230000", "1.23", "3.69"),
        ("\"0007.50\"", "7.5", "22.5"),
        ("0", "0", "0"),
        ("\"0.0000\"", "0", "0"),
        ("-0", "0", "0"),
        ("\"-0.00\"", "0", "0"),
        ("0.0001", "0.0001", "0.0003"),
        ("999999999.9999", "999999999.9999", "2999999999.9997"),
        // Beyond the precision of a binary fraction.
        ("900719925.4741", "900719925.4741", "2702159776.4223"),
        // Other forms of JSON numbers.
        ("1e2", "100", "300"),
        ("1.5E3", "1500", "4500"),
        ("25e-4", "0.0025", "0.0075"),
    ] {
        let cart = api.cart();
        let reply = cart.send(Method::POST, "", &[], Some(written("\"mug\"", price))).await?.done();
        assert_eq!(reply["item"]["price"], exact, "{price}: {reply:#}");
        let shown = cart.get().await?;
        assert_eq!((&shown["items"][0], &shown["total"]), (&reply["item"], &json!(of_three)), "{price}");
        let bought = cart.checkout().await?.done();
        assert_eq!((&bought["items"][0], &bought["total"]), (&reply["item"], &json!(of_three)), "{price}");
    }
    let longest = "ü".repeat(200);
    for name in ["x", " two  words ", longest.as_str(), "\"quoted\" \\ /", "漢字 🛒", "\u{200f}שלום"] {
        let cart = api.cart();
        let reply = cart.send(Method::POST, "", &[], Some(written(&json!(name).to_string(), "1"))).await?.done();
        assert_eq!(reply["item"]["name"], name);
        assert_eq!(cart.get().await?["items"][0]["name"], name);
    }
    // An escaped name is the same name.
    for (name, composed) in [("cafe\u{301}", "café"), ("Jose\u{301}", "José"), ("\u{1112}\u{1161}\u{11ab}", "한")] {
        let cart = api.cart();
        let body = Some(written(&json!(name).to_string(), "1"));
        let key: Headers<'_> = &[("idempotency-key", "name")];
        let reply = cart.send(Method::POST, "", key, body).await?.done();
        assert_eq!(reply["item"]["name"], composed);
        let body = Some(written(&json!(composed).to_string(), "1"));
        assert_eq!(cart.send(Method::POST, "", key, body).await?.done(), reply);
    }
    // JSON with another content type is accepted.
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.shop.item+json"] {
        let headers: Headers<'_> = &[("content-type", content_type)];
        api.cart().send(Method::POST, "", headers, Some(written("\"mug\"", "1"))).await?.done();
    }
    drop(processes);
    installation.remove().await
}
