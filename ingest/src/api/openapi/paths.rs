//! The paths of the document: the requests and responses of each operation.

use serde_json::{Map, Value, json};

use super::examples::{self, named};
use crate::api::query::SINCE_MAX;
use crate::problem::Kind;

/// The schemas of bodies, or references to them.
pub(super) struct Bodies {
    pub(super) add: Value,
    pub(super) adjust: Value,
    pub(super) batch: Value,
    pub(super) accepted: Value,
    pub(super) status: Value,
    pub(super) cart: Value,
    pub(super) events: Value,
    pub(super) billing: Value,
    pub(super) quantities: Value,
    pub(super) problem: Value,
}

/// Statuses of every request.
const ANY: [u16; 6] = [400, 401, 403, 405, 500, 503];

/// Further statuses of commands.
const RULES: [u16; 5] = [404, 409, 412, 422, 504];

/// Further statuses of requests with a body.
const BODY: [u16; 3] = [408, 413, 415];

/// Headers of every command.
const COMMAND: [&str; 6] = ["IdempotencyKey", "IfMatch", "IfNoneMatch", "Prefer", "CommandTime", "XRequestId"];

/// How to follow a stream: a client that waits for the whole response waits for ever. The time is that of page.js.
const STREAM: &str = "A stream does not end by itself. The page at `/docs` shows the first three seconds of one, if `text/event-stream` is \
    chosen as the media type of the response. To follow a cart: \
    `curl -N -H 'Accept: text/event-stream' http://127.0.0.1:9001/cart/{cartId}/events`";

struct Operation<'a> {
    tag: &'static str,
    id: &'static str,
    summary: &'static str,
    parameters: Vec<&'static str>,
    body: Option<&'a Value>,
    ok: &'a Value,
    statuses: Vec<u16>,
}

impl Operation<'_> {
    fn json(&self, bodies: &Bodies) -> Value {
        let mut responses = Map::new();
        let is_command = self.tag == "commands" && self.id != "commandStatus";
        let mut headers = json!({"X-Request-Id": header("The id of the request in the logs of the service")});
        if matches!(self.id, "addItem" | "removeItem" | "adjustItem" | "checkout" | "showCart") {
            headers["ETag"] = header("The cart's version, for If-Match");
        }
        if self.tag == "commands" {
            headers["Read-After-Token"] = header("For Read-After; of an accepted command");
        }
        responses.insert(
            String::from("200"),
            response("Done", "application/json", self.ok, headers, named(examples::responses(self.id))),
        );
        if self.id == "showEvents" {
            responses["200"]["content"]["text/event-stream"] = json!({
                "schema": {"type": "string", "description": "Server-Sent Events: `id` is an event's sequence number, `data` the event"},
                "examples": named([("a stream", json!(examples::event_stream()))]),
            });
        }
        if is_command {
            let headers = json!({"X-Request-Id": header("The id of the request in the logs of the service"), "Location": header("Where to query the command's outcome")});
            let text = "The command is in the log; its outcome is not known yet";
            let example = named([("pending", examples::pending()), ("the cart is parked", examples::parked())]);
            responses.insert(String::from("202"), response(text, "application/json", &bodies.status, headers, example));
        }
        for status in &self.statuses {
            let headers = json!({"X-Request-Id": header("The id of the request in the logs of the service")});
            let kinds = Kind::ALL.iter().filter(|kind| kind.status().as_u16() == *status);
            let codes = kinds.map(|kind| kind.code());
            let text = codes.clone().collect::<Vec<_>>().join(", ");
            let example = |code: &str| json!({"$ref": format!("#/components/examples/{code}")});
            let examples = codes.map(|code| (code.to_owned(), example(code))).collect();
            let problem =
                response(&text, "application/problem+json", &bodies.problem, headers, Value::Object(examples));
            responses.insert(status.to_string(), problem);
        }
        let parameters: Vec<_> =
            self.parameters.iter().map(|name| json!({"$ref": format!("#/components/parameters/{name}")})).collect();
        let mut operation = json!({
            "tags": [self.tag], "operationId": self.id, "summary": self.summary,
            "parameters": parameters, "responses": responses,
        });
        if self.id == "showEvents" {
            operation["description"] = json!(STREAM);
        }
        if let Some(body) = self.body {
            operation["requestBody"] = json!({
                "required": true,
                "content": {"application/json": {"schema": body, "examples": named(examples::requests(self.id))}},
            });
        }
        operation
    }
}

fn header(description: &str) -> Value {
    json!({"description": description, "schema": {"type": "string"}})
}

fn response(description: &str, content_type: &str, schema: &Value, headers: Value, examples: Value) -> Value {
    let content = json!({content_type: {"schema": schema, "examples": examples}});
    json!({"description": description, "headers": headers, "content": content})
}

pub(super) fn paths(bodies: &Bodies) -> Value {
    let statuses = |groups: &[&[u16]]| groups.concat();
    let command = |id, summary, path: &[&'static str], body| Operation {
        tag: "commands",
        id,
        summary,
        parameters: path.iter().copied().chain(COMMAND).collect(),
        body,
        ok: &bodies.accepted,
        statuses: statuses(&[&ANY, &RULES, if body.is_some() { &BODY } else { &[] }]),
    };
    let read = |tag, id, summary, parameters: &[&'static str], ok, more: &[u16]| Operation {
        tag,
        id,
        summary,
        parameters: parameters.iter().copied().chain(["XRequestId"]).collect(),
        body: None,
        ok,
        statuses: statuses(&[&ANY, more]),
    };
    let product = ["CartId", "ProductId"];
    let operations: [(&str, &str, Operation<'_>); 10] = [
        (
            "/cart/{cartId}",
            "get",
            read(
                "carts",
                "showCart",
                "Shows a cart",
                &["CartId", "ShownIfMatch", "ShownIfNoneMatch"],
                &bodies.cart,
                &[412],
            ),
        ),
        ("/cart/{cartId}", "post", command("addItem", "Adds an item", &["CartId"], Some(&bodies.add))),
        ("/cart/{cartId}/productId/{productId}", "delete", command("removeItem", "Removes an item", &product, None)),
        (
            "/cart/{cartId}/productId/{productId}",
            "patch",
            command("adjustItem", "Changes an item's quantity", &product, Some(&bodies.adjust)),
        ),
        ("/cart/{cartId}/checkout", "post", command("checkout", "Buys everything in the cart", &["CartId"], None)),
        (
            "/cart/{cartId}/commands",
            "post",
            command(
                "sendCommands",
                "Sends up to 100 commands in order: each on its own, or all or none",
                &["CartId"],
                Some(&bodies.batch),
            ),
        ),
        (
            "/cart/{cartId}/commands/{commandId}",
            "get",
            read(
                "commands",
                "commandStatus",
                "Shows whether a command is pending, accepted or rejected",
                &["CartId", "CommandId", "Since"],
                &bodies.status,
                &[404],
            ),
        ),
        (
            "/cart/{cartId}/events",
            "get",
            read(
                "carts",
                "showEvents",
                "Lists the cart's events, oldest first; with Accept: text/event-stream also those that follow",
                &["CartId", "After", "Limit", "LastEventId"],
                &bodies.events,
                &[],
            ),
        ),
        (
            "/vendors/{vendorId}/billing",
            "get",
            read(
                "vendors",
                "showBilling",
                "Shows a vendor's balance by month (UTC)",
                &["VendorId", "Year", "ReadAfter"],
                &bodies.billing,
                &[504],
            ),
        ),
        (
            "/vendors/{vendorId}/products/{productId}/quantities",
            "get",
            read(
                "vendors",
                "showQuantities",
                "Shows pieces sold by day (UTC)",
                &["VendorId", "ProductId", "Year", "Month", "ReadAfter"],
                &bodies.quantities,
                &[504],
            ),
        ),
    ];
    let mut paths: Map<String, Value> = Map::new();
    for (path, method, operation) in &operations {
        let entry = paths.entry(*path).or_insert_with(|| json!({}));
        entry[*method] = operation.json(bodies);
    }
    paths["/cart/{cartId}"]["get"]["responses"]["304"] = json!({
        "description": "The client has this version",
        "headers": {"X-Request-Id": header("The id of the request in the logs of the service"), "ETag": header("The cart's version")},
    });
    Value::Object(paths)
}

pub(super) fn parameters() -> Value {
    let uuid = || json!({"type": "string", "format": "uuid"});
    let path = |name: &str, what: &str| json!({"name": name, "in": "path", "required": true, "description": what, "schema": uuid()});
    // What the page at /docs fills in: the ids of the examples, so that they can be tried one after the other.
    let filled = |mut parameter: Value, example: Value| {
        parameter["example"] = example;
        parameter
    };
    let query = |name: &str, required: bool, what: &str, schema: Value| json!({"name": name, "in": "query", "required": required, "description": what, "schema": schema});
    let header = |name: &str, what: &str, schema: Value| json!({"name": name, "in": "header", "required": false, "description": what, "schema": schema});
    let whole = |minimum: i64, maximum: i64| json!({"type": "integer", "minimum": minimum, "maximum": maximum});
    let text = |pattern: &str| json!({"type": "string", "pattern": pattern});
    // RFC 9110, section 8.8.3.
    let tag = r#"(W/)?"[\x21\x23-\x7e\x80-\xff]*""#;
    let tags = format!(r"^(\*|[ \t,]*{tag}([ \t]*,[ \t,]*{tag})*[ \t,]*)$");
    json!({
        "CartId": filled(path("cartId", "The id of the cart, which never changes"), json!(examples::CART)),
        "ProductId": filled(path("productId", "The product"), json!(examples::MUG)),
        "VendorId": filled(path("vendorId", "The vendor"), json!(examples::VENDOR)),
        "CommandId": path("commandId", "The id of the command, from its answer"),
        "Since": query("since", false, "When the command was sent, in milliseconds since 1970, as in Location; required for a command with an Idempotency-Key", json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": SINCE_MAX})),
        "After": query("after", false, "The sequence number after which the page or the stream starts", json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": i64::MAX})),
        "Limit": query("limit", false, "Maximum number of events in the page; 100 by default. A stream has no pages and rejects it", whole(1, 1_000)),
        "LastEventId": header("Last-Event-ID", "The last event that the client has seen; it takes precedence over `after`. Browsers send it when they reconnect to a stream", text(r"^(0|[1-9]\d{0,17})$")),
        "Year": filled(query("year", true, "The year (UTC)", whole(1, 9_999)), json!(2026)),
        "Month": filled(query("month", true, "The month (UTC)", whole(1, 12)), json!(9)),
        "IdempotencyKey": header("Idempotency-Key", "A retry with the same key gets the first outcome and changes nothing. Any text in UTF-8; the pattern is that of its bytes", json!({"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"^[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*$"})),
        "IfMatch": header("If-Match", "The version that the cart must have when the command is decided, as an ETag; or *. A weak ETag never matches", text(&format!(r"^({tag}|\*)$"))),
        "IfNoneMatch": header("If-None-Match", "*: the cart must have no events yet, as with If-Match: \"0\"", text(r"^\*$")),
        "ShownIfMatch": header("If-Match", "412 unless the cart's ETag is one of these; or *", text(&tags)),
        "ShownIfNoneMatch": header("If-None-Match", "304 if the cart's ETag is one of these; or *", text(&tags)),
        "Prefer": header("Prefer", "respond-async: answer 202 at once; wait=N: after N seconds at the latest, if the log has the command by then (RFC 7240)", json!({"type": "string", "examples": ["respond-async", "wait=5"]})),
        // Without `format`: generators of clients have no way to put a time into a header.
        "CommandTime": header("Command-Time", "The command's time, for imports: RFC 3339, in the years 1 to 9999 in UTC, such as 2010-12-01T08:25:53Z. Only an ingest with --allow-client-time accepts it; others answer 400", text(r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$")),
        "ReadAfter": header("Read-After", "A Read-After-Token: the read waits until the table includes that command. Other values are answered with 400", json!({"type": "string", "pattern": r"^\d+-\d+-\d+$"})),
        "XRequestId": header("X-Request-Id", "An id of the request for the logs: 1 to 128 visible ASCII characters; other values are replaced", json!({"type": "string"})),
    })
}
