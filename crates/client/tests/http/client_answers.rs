//! Every kind of answer, and its result in the client.

use std::time::Duration;

use client::ids::{CartId, ProductId, VendorId};
use client::{CartClient, ClientSettings, CommandOptions, Error, Execution, Item, Outcome};
use rust_decimal::Decimal;

use crate::service::{Behaviour, Service};

fn client(service: &Service) -> CartClient {
    CartClient::new(&service.url, &ClientSettings::default()).expect("a good URL")
}

fn cart() -> CartId {
    CartId::of_member("17850")
}

fn item() -> Item {
    Item {
        product_id: ProductId::of_product("85123A"),
        vendor_id: VendorId::of_vendor("851"),
        name: "HOLDER".to_owned(),
        price: Decimal::new(1, 3),
        quantity: 6,
    }
}

fn accepted<T: std::fmt::Debug>(result: Result<Outcome<T>, Error>) -> T {
    match result {
        Ok(Outcome::Accepted(accepted)) => accepted,
        other => panic!("not accepted: {other:?}"),
    }
}

/// The result of a checkout at a service that always gives this answer.
async fn result_of(status: u16, kind: &'static str, body: &str) -> Result<Outcome<client::Purchase>, Error> {
    let body = body.to_owned();
    let service = Service::start(move |_| Behaviour::Say(status, kind, body.clone())).await;
    client(&service).checkout(cart(), CommandOptions::default()).await
}

#[tokio::test]
async fn each_command_is_understood_and_answered() {
    let service = Service::start(|_| Behaviour::Answer).await;
    let client = client(&service);
    let options = CommandOptions::default();
    let product = item().product_id;

    assert_eq!(client.cart(cart()).await.expect("an empty cart").version, 0);
    let added = accepted(client.add(cart(), &item(), options).await);
    assert_eq!((added.item, added.version, added.cart_id), (item(), 1, cart()));
    let adjusted = accepted(client.adjust(cart(), product, -2, options).await);
    assert_eq!(adjusted.item.quantity, 4);
    assert_eq!(client.cart(cart()).await.expect("a cart").items, std::slice::from_ref(&adjusted.item));
    let removed = accepted(client.remove(cart(), product, options).await);
    assert_eq!(removed.item, adjusted.item);
    accepted(client.add(cart(), &item(), options).await);
    let bought = accepted(client.checkout(cart(), options).await);
    assert_eq!((bought.items, bought.total), (vec![item()], Decimal::new(1250, 2)));
}

#[tokio::test]
async fn key_and_time_are_sent_as_headers() {
    let service = Service::start(|_| Behaviour::Answer).await;
    let at = "2010-12-01T08:25:53Z".parse().expect("a time");
    let options = CommandOptions { idempotency_key: Some("k-1"), command_time: Some(at) };
    let client = client(&service);
    let first = accepted(client.add(cart(), &item(), options).await);
    let again = accepted(client.add(cart(), &item(), options).await);
    assert_eq!(first, again, "a repeated key gets its first outcome");
    let state = service.state();
    assert_eq!(state.calls[0].key.as_deref(), Some("k-1"));
    assert_eq!(state.calls[0].time.as_deref(), Some("2010-12-01T08:25:53Z"));
}

#[tokio::test]
async fn a_rejection_is_a_value() {
    let service = Service::start(|_| Behaviour::Answer).await;
    match client(&service).checkout(cart(), CommandOptions::default()).await {
        Ok(Outcome::Rejected(problem)) => {
            assert_eq!((problem.code(), problem.status), ("empty-cart-checkout", 409));
            assert!(problem.command_id.is_some());
        }
        other => panic!("not rejected: {other:?}"),
    }
}

#[tokio::test]
async fn pending_and_unavailable_are_values() {
    let service = Service::start(|call| match call.number {
        0 => Behaviour::ExecuteAndSayPending,
        _ => Behaviour::Unavailable,
    })
    .await;
    let client = client(&service);
    let pending = client.checkout(cart(), CommandOptions::default()).await;
    assert!(matches!(pending, Ok(Outcome::Pending { .. })), "{pending:?}");
    let unavailable = client.checkout(cart(), CommandOptions::default()).await;
    let Ok(Outcome::Unavailable { retry_after, .. }) = unavailable else { panic!("{unavailable:?}") };
    assert_eq!(retry_after, Some(Duration::ZERO));
}

#[tokio::test]
async fn errors_say_whether_the_command_may_have_been_executed() {
    let unreachable = CartClient::new("http://127.0.0.1:1", &ClientSettings::default()).expect("a good URL");
    let error = unreachable.checkout(cart(), CommandOptions::default()).await.expect_err("no server listens");
    assert_eq!((error.execution(), error.is_transient()), (Execution::NotExecuted, true), "{error:?}");

    let service = Service::start(|_| Behaviour::ExecuteAndDrop).await;
    let error = client(&service).checkout(cart(), CommandOptions::default()).await.expect_err("no answer");
    assert_eq!((error.execution(), error.is_transient()), (Execution::Unknown, true), "{error:?}");
    assert_eq!(service.state().calls.len(), 1, "the client sends nothing twice on its own");

    let service = Service::start(|_| Behaviour::Hold).await;
    let hasty = ClientSettings { answer_timeout: Duration::from_millis(20), ..ClientSettings::default() };
    let hasty = CartClient::new(&service.url, &hasty).expect("a good URL");
    let error = hasty.checkout(cart(), CommandOptions::default()).await.expect_err("no answer in time");
    assert!(matches!(error, Error::NoAnswer { .. }), "{error:?}");

    let bad_key = CommandOptions { idempotency_key: Some("two\nlines"), command_time: None };
    let error = client(&service).checkout(cart(), bad_key).await.expect_err("no header value");
    assert_eq!((error.execution(), error.is_transient()), (Execution::NotExecuted, false), "{error:?}");
}

#[tokio::test]
async fn answers_out_of_contract_are_errors_with_their_beginning() {
    let error = result_of(500, "text/plain", "boom").await.expect_err("a server error");
    assert_eq!(error.to_string(), "unexpected answer 500 Internal Server Error: boom");
    assert_eq!((error.execution(), error.is_transient()), (Execution::Unknown, true));

    let error = result_of(404, "text/html", "<h1>another server</h1>").await.expect_err("no problem details");
    assert!(!error.is_transient(), "{error}");

    let error = result_of(200, "application/json", "{}").await.expect_err("an empty answer");
    assert!(matches!(error, Error::UnreadableAnswer { .. }), "{error:?}");

    let error = result_of(200, "application/json", &" ".repeat(5 << 20)).await.expect_err("too much");
    assert!(matches!(error, Error::AnswerTooLong { .. }), "{error:?}");
}

#[test]
fn only_http_urls_are_accepted() {
    for url in ["127.0.0.1:9001", "ftp://x", "http://", "/cart", ""] {
        let client = CartClient::new(url, &ClientSettings::default());
        assert!(matches!(client, Err(Error::BaseUrl { .. })), "{url}");
    }
}
