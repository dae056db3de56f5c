//! What an action may say, and where actions are allowed.

use clap::Parser as _;

use super::*;

#[test]
fn a_misspelt_field_is_no_action() {
    let parse = |text: &str| serde_json::from_str::<Action>(text).ok();
    let pause = |partition| {
        let (group, reason) = (String::from("vendor-billing"), String::from("a test"));
        Some(Action::Pause { group, partition, reason })
    };
    assert_eq!(parse(r#"{"action":"pause","group":"vendor-billing","reason":"a test"}"#), pause(None));
    let with =
        |field: &str| parse(&format!(r#"{{"action":"pause","group":"vendor-billing","{field}":3,"reason":"a test"}}"#));
    assert_eq!((with("partition"), with("partitions")), (pause(Some(3)), None));
    let cart_id = CartId::from(uuid::Uuid::from_u128(7));
    let retry = format!(r#"{{"action":"retry","cartId":"{cart_id}"}}"#);
    assert_eq!(parse(&retry), Some(Action::Retry { cart_id }));
    let vendor_id = VendorId::from(uuid::Uuid::from_u128(8));
    let retry_row = |field: &str| {
        parse(&format!(r#"{{"action":"retryRow","group":"vendor-billing","{field}":"{vendor_id}","row":"2026-11"}}"#))
    };
    let (group, row) = (String::from("vendor-billing"), String::from("2026-11"));
    assert_eq!(retry_row("vendorId"), Some(Action::RetryRow { group, vendor_id, row }));
    assert_eq!((retry_row("vendor"), parse(r#"{"action":"discard"}"#)), (None, None));
}

#[test]
fn a_reason_is_short_and_required_for_a_pause() {
    assert!(matches!(required(" index build "), Ok("index build")));
    assert!(matches!((limited(""), required(" ")), (Ok(""), Err(Failure::Invalid(_)))));
    assert!(limited(&"x".repeat(REASON_MAX)).is_ok() && limited(&"x".repeat(REASON_MAX + 1)).is_err());
}

#[test]
fn a_name_is_short() {
    assert!(named(&"é".repeat(NAME_MAX)).is_ok());
    assert!(matches!(named(&"x".repeat(NAME_MAX + 1)), Err(Failure::Invalid(_))));
}

#[test]
fn each_action_names_the_list_that_shows_it() {
    let cart_id = CartId::from(uuid::Uuid::from_u128(7));
    assert_eq!(Action::Retry { cart_id }.list(), "cartctl parked");
    let (group, row) = (String::from("vendor-billing"), String::from("2026-11"));
    let vendor_id = VendorId::from(uuid::Uuid::from_u128(8));
    assert_eq!(Action::RetryRow { group, vendor_id, row }.list(), "cartctl parked rows");
    let (group, reason) = (String::from("vendor-billing"), String::new());
    assert_eq!(Action::Resume { group, partition: None, reason }.list(), "cartctl log");
}

async fn start(args: &[&str]) -> anyhow::Result<Option<Actions>> {
    let (_stop, shutdown) = Shutdown::channel();
    let args = Args::parse_from(["cart-console"].iter().chain(args));
    let stores = Stores::new(&args.kafka, &args.cassandra, &args.database)?;
    Actions::start(&args, Arc::new(stores), shutdown).await
}

#[tokio::test]
async fn actions_without_authentication_are_on_loopback_only() {
    assert!(start(&["--listen", "0.0.0.0:9010"]).await.is_ok_and(|actions| actions.is_none()));
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let actions = start(&["--allow-operations", "--listen", listen]).await.expect("they are allowed");
        assert!(actions.is_some_and(|actions| !actions.needs_token()), "{listen}");
    }
    for listen in ["0.0.0.0:0", "[::]:0", "10.1.2.3:9010"] {
        let error = start(&["--allow-operations", "--listen", listen]).await.expect_err("everybody could act");
        assert!(error.to_string().contains("--auth jwt"), "{error:#}");
    }
}
